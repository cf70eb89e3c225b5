// Squares cut out of a frame and resized (docs/bundle-spec.md, 3 and 4.1).
#pragma once

#include <cstdint>
#include <opencv2/core.hpp>

#include "edgetrack/box.hpp"

namespace edgetrack {

// A square of whole pixels, which the frame need not hold; side >= 1.
struct Square {
  std::int64_t x = 0, y = 0, side = 1;
};

// Around a box, `factor` times the root of its area: the rule of the OSTrack family.
Square square_around(const Box& box, double factor);

// The same around a box of whole pixels, as OpenCV's TrackerVit cuts it.
Square whole_square_around(const Box& box, double factor);

// Resize a square of a uint8 BGR frame to size x size pixels at `out`. The frame's rows and columns from `held` on
// count as outside it, and what is outside has the colour `fill`.
void crop(const cv::Mat& frame, const Square& square, cv::Size held, const cv::Scalar& fill, std::uint8_t* out,
          int size);

// Write 1 where such a crop touches what the frame does not hold, its last row and column included; else 0.
void padding_mask(const cv::Mat& frame, const Square& square, std::uint8_t* out, int size);

}  // namespace edgetrack
