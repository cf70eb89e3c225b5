// From a head's maps to a box (docs/bundle-spec.md, 4.1 and 4.3).
#pragma once

#include <optional>
#include <vector>

#include "edgetrack/box.hpp"

namespace edgetrack {

// Hann windows of n x n cells in row-major order: without zeros at the border, multiplied onto a centre head's score in
// float32; and with them, added to an anchor-free head's.
std::vector<float> hann_open(int n);
std::vector<double> hann_closed(int n);

// The chosen cell of a centre head: its score with and without the window, its box in fractions of the crop.
struct Peak {
  double score, windowed, cx, cy, w, h;
};

// The cell of the highest windowed score, the first of equal ones; maps as 4.1 states them, n x n cells.
Peak decode_center(const float* score, const float* size, const float* offset, const std::vector<float>& window);

// From fractions of the crop to pixels: around the last box's centre, `extent` pixels of the frame a crop.
Box map_back(const Peak& peak, const Box& last, double extent);

// sqrt((w + p)(h + p)), p = (w + h) / 2.
double size_with_context(double w, double h);

// The chosen cell of a head of distances: centre from the crop's middle and size in pixels of the crop.
struct Found {
  double score, weight, x, y, w, h;
};

// Chooses among the cells of a head of distances (4.3, steps 2 to 4).
class DistanceDecoder {
 public:
  DistanceDecoder(int cells, double influence, double penalty, int stride);

  // The best cell, or nothing where a number that decides is not finite.
  //   score: n x n, 0..1.
  //   distances: 4 x n x n, left, top, right and lower edge in pixels of the crop.
  //   scale, aspect: size with context in pixels of the crop, and width over height, of the last box.
  std::optional<Found> operator()(const std::vector<double>& score, const std::vector<float>& distances, double scale,
                                  double aspect) const;

 private:
  int cells_, stride_;
  double keep_, penalty_;
  std::vector<double> window_;
};

}  // namespace edgetrack
