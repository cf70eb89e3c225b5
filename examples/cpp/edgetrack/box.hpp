// Boxes: x, y, w, h in pixels of the frame, top-left corner and size (docs/bundle-spec.md, 3).
#pragma once

#include <algorithm>
#include <cmath>

namespace edgetrack {

struct Box {
  double x = 0, y = 0, w = 1, h = 1;

  double center_x() const { return x + 0.5 * w; }
  double center_y() const { return y + 0.5 * h; }

  static Box from_center(double cx, double cy, double w, double h) { return {cx - 0.5 * w, cy - 0.5 * h, w, h}; }

  bool is_finite() const { return std::isfinite(x) && std::isfinite(y) && std::isfinite(w) && std::isfinite(h); }

  // A box found that the next crop can be cut around.
  bool can_be_followed() const { return is_finite() && w >= 0 && w <= 1e6 && h >= 0 && h <= 1e6; }
};

// Keep a box in a frame of width x height with at least `margin` pixels of it on each axis (4.1, step 5).
inline Box clip(const Box& box, int width, int height, double margin) {
  const double left = std::min(std::max(0.0, box.x), width - margin);
  const double right = std::min(std::max(margin, box.x + box.w), double(width));
  const double top = std::min(std::max(0.0, box.y), height - margin);
  const double bottom = std::min(std::max(margin, box.y + box.h), double(height));
  return {left, top, std::max(margin, right - left), std::max(margin, bottom - top)};
}

}  // namespace edgetrack
