#include "edgetrack/decode.hpp"

namespace edgetrack {
namespace {

constexpr double kPi = 3.14159265358979323846;

std::vector<double> outer(const std::vector<double>& row) {
  std::vector<double> window;
  for (const double a : row)
    for (const double b : row) window.push_back(a * b);
  return window;
}

double change(double ratio) { return std::max(ratio, 1 / ratio); }

}  // namespace

std::vector<float> hann_open(int n) {
  std::vector<double> row;
  for (int k = 1; k <= n; ++k) row.push_back(0.5 * (1 - std::cos(2 * kPi * k / (n + 1))));
  const std::vector<double> window = outer(row);
  return {window.begin(), window.end()};
}

std::vector<double> hann_closed(int n) {
  std::vector<double> row;
  for (int k = 0; k < n; ++k) row.push_back(0.5 * (1 - std::cos(2 * kPi * k / (n - 1))));
  return outer(row);
}

Peak decode_center(const float* score, const float* size, const float* offset, const std::vector<float>& window) {
  const int count = int(window.size()), n = int(std::lround(std::sqrt(double(count))));
  int best = 0;
  float highest = score[0] * window[0];
  for (int i = 1; i < count; ++i) {
    const float value = score[i] * window[i];
    if (value > highest) best = i, highest = value;
  }
  return {score[best],
          highest,
          (best % n + double(offset[best])) / n,
          (best / n + double(offset[count + best])) / n,
          size[best],
          size[count + best]};
}

Box map_back(const Peak& peak, const Box& last, double extent) {
  const double half = 0.5 * extent;
  return Box::from_center(peak.cx * extent + last.center_x() - half, peak.cy * extent + last.center_y() - half,
                          peak.w * extent, peak.h * extent);
}

double size_with_context(double w, double h) {
  const double context = 0.5 * (w + h);
  return std::sqrt((w + context) * (h + context));
}

DistanceDecoder::DistanceDecoder(int cells, double influence, double penalty, int stride)
    : cells_(cells), stride_(stride), keep_(1 - influence), penalty_(penalty), window_(hann_closed(cells)) {
  for (double& value : window_) value *= influence;
}

std::optional<Found> DistanceDecoder::operator()(const std::vector<double>& score, const std::vector<float>& distances,
                                                 double scale, double aspect) const {
  const int count = cells_ * cells_;
  const float *left = distances.data(), *top = left + count, *right = top + count, *bottom = right + count;
  int best = -1;
  double highest = 0, best_weight = 0;
  for (int i = 0; i < count; ++i) {
    double weight = score[i];
    if (penalty_ != 0) {
      // Sums of float32, as the maps are.
      const double w = left[i] + right[i], h = top[i] + bottom[i];
      const double changed = change(size_with_context(w, h) / scale) * change(aspect / (w / h));
      weight = std::exp((changed - 1) * -penalty_) * score[i];
    }
    const double windowed = weight * keep_ + window_[i];
    if (!std::isfinite(windowed)) return std::nullopt;
    if (best < 0 || windowed > highest) best = i, highest = windowed, best_weight = weight;
  }
  const double px = stride_ * (best % cells_ - cells_ / 2), py = stride_ * (best / cells_ - cells_ / 2);
  const double x1 = px - left[best], x2 = px + right[best], y1 = py - top[best], y2 = py + bottom[best];
  const Found found{score[best], best_weight, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1};
  if (!std::isfinite(found.w) || !std::isfinite(found.h)) return std::nullopt;
  return found;
}

}  // namespace edgetrack
