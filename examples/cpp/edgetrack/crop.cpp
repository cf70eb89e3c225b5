#include "edgetrack/crop.hpp"

#include <opencv2/imgproc.hpp>
#include <vector>

namespace edgetrack {
namespace {

// A padded square is copied; from this side on (50 MB) it is sampled instead.
constexpr std::int64_t kLargestCopy = 4096;

std::int64_t side_of(const Box& box, double factor) {
  return std::max<std::int64_t>(1, std::int64_t(std::ceil(std::sqrt(box.w * box.h) * factor)));
}

// Along one axis: both places that each output pixel mixes, and their weights, 0 for a place that is not there.
struct Taps {
  std::vector<int> place[2];
  std::vector<double> weight[2];
};

Taps taps(std::int64_t start, int length, std::int64_t side, int size) {
  Taps found;
  for (int i = 0; i < size; ++i) {
    const double position = double(start) + (i + 0.5) * (double(side) / size) - 0.5;
    const double first = std::floor(position), fraction = position - first;
    for (int k = 0; k < 2; ++k) {
      const double at = first + k;
      const bool there = at >= 0 && at < length;
      found.place[k].push_back(there ? int(at) : 0);
      found.weight[k].push_back(there ? (k ? fraction : 1 - fraction) : 0.0);
    }
  }
  return found;
}

// Resize a padded square without making it; `cut` is what the frame holds of it.
void sample(const cv::Mat& cut, const Square& square, const cv::Scalar& fill, cv::Mat& out) {
  const Taps rows = taps(std::min<std::int64_t>(square.y, 0), cut.rows, square.side, out.rows);
  const Taps columns = taps(std::min<std::int64_t>(square.x, 0), cut.cols, square.side, out.cols);
  for (int r = 0; r < out.rows; ++r) {
    for (int c = 0; c < out.cols; ++c) {
      cv::Scalar total = fill;
      for (int i = 0; i < 4; ++i) {
        const double weight = rows.weight[i / 2][r] * columns.weight[i % 2][c];
        const auto& pixel = cut.at<cv::Vec3b>(rows.place[i / 2][r], columns.place[i % 2][c]);
        for (int k = 0; k < 3; ++k) total[k] += weight * (pixel[k] - fill[k]);
      }
      for (int k = 0; k < 3; ++k) out.at<cv::Vec3b>(r, c)[k] = std::uint8_t(std::nearbyint(total[k]));
    }
  }
}

}  // namespace

Square square_around(const Box& box, double factor) {
  const std::int64_t side = side_of(box, factor);
  // nearbyint rounds halves to even, which is the published rule.
  return {std::int64_t(std::nearbyint(box.x + 0.5 * box.w - 0.5 * side)),
          std::int64_t(std::nearbyint(box.y + 0.5 * box.h - 0.5 * side)), side};
}

Square whole_square_around(const Box& box, double factor) {
  const std::int64_t side = side_of(box, factor);
  return {std::int64_t(box.x) + std::int64_t((box.w - side) / 2),
          std::int64_t(box.y) + std::int64_t((box.h - side) / 2), side};
}

void crop(const cv::Mat& frame, const Square& square, cv::Size held, const cv::Scalar& fill, std::uint8_t* out,
          int size) {
  cv::Mat target(size, size, CV_8UC3, out);
  const std::int64_t x2 = square.x + square.side, y2 = square.y + square.side;
  const std::int64_t left = std::max<std::int64_t>(0, -square.x), top = std::max<std::int64_t>(0, -square.y);
  const std::int64_t right = std::max<std::int64_t>(0, x2 - held.width);
  const std::int64_t bottom = std::max<std::int64_t>(0, y2 - held.height);
  const std::int64_t first_row = square.y + top, last_row = y2 - bottom;
  const std::int64_t first_column = square.x + left, last_column = x2 - right;
  if (first_row >= last_row || first_column >= last_column) {
    target.setTo(fill);
    return;
  }
  cv::Mat cut = frame(cv::Rect(int(first_column), int(first_row), int(last_column - first_column),
                               int(last_row - first_row)));
  if (left || top || right || bottom) {
    if (square.side > kLargestCopy) {
      sample(cut, square, fill, target);
      return;
    }
    cv::Mat padded;
    // Isolated: else OpenCV takes the border from the frame around the cut, where the frame has one.
    cv::copyMakeBorder(cut, padded, int(top), int(bottom), int(left), int(right),
                       cv::BORDER_CONSTANT | cv::BORDER_ISOLATED, fill);
    cut = padded;
  }
  cv::resize(cut, target, target.size(), 0, 0, cv::INTER_LINEAR);
}

void padding_mask(const cv::Mat& frame, const Square& square, std::uint8_t* out, int size) {
  const auto line = [size](std::int64_t start, std::int64_t side, int length) {
    std::vector<std::uint8_t> touched(size);
    if (side > kLargestCopy) {
      for (int i = 0; i < size; ++i) {
        const double first = std::floor((i + 0.5) * (double(side) / size) - 0.5) + double(start);
        touched[i] = first < 0 || first + 1 >= length - 1;
      }
      return touched;
    }
    cv::Mat outside(1, int(side), CV_32F), resized;
    for (int i = 0; i < side; ++i) outside.at<float>(0, i) = start + i < 0 || start + i >= length - 1 ? 1.0F : 0.0F;
    cv::resize(outside, resized, cv::Size(size, 1), 0, 0, cv::INTER_LINEAR);
    for (int i = 0; i < size; ++i) touched[i] = resized.at<float>(0, i) > 0;
    return touched;
  };
  const auto rows = line(square.y, square.side, frame.rows), columns = line(square.x, square.side, frame.cols);
  for (int r = 0; r < size; ++r)
    for (int c = 0; c < size; ++c) out[r * size + c] = rows[r] | columns[c];
}

}  // namespace edgetrack
