// Families center and box: a square around the box, fractions of it back (docs/bundle-spec.md, 4.1 and 4.2).
#include "edgetrack/crop.hpp"
#include "edgetrack/decode.hpp"
#include "edgetrack/families.hpp"

namespace edgetrack {
namespace {

bool all_finite(const float* values, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    if (!std::isfinite(values[i])) return false;
  return true;
}

class SquareTracker : public Tracker {
 protected:
  SquareTracker(const Bundle& bundle, Graphs graphs)
      : Tracker(bundle, std::move(graphs)),
        template_factor_(bundle.number("template_factor")),
        search_factor_(bundle.number("search_factor")),
        margin_(bundle.number("clip_margin", 10)),
        template_size_(int(bundle.number("template_size"))),
        search_size_(int(bundle.number("search_size"))),
        whole_(bundle.text("crop", "square") == "whole"),
        hold_(bundle.text("on_lost", "flag") == "hold") {
    const Tensor* search = input("search");
    const std::vector<std::int64_t> shape = {search_size_, search_size_, 3};
    if (search == nullptr || search->info.dtype != "uint8" || search->info.shape != shape)
      throw Error("bundle " + bundle.name + " has no input search of the size that its procedure states");
    if (template_size_ < 8 || template_size_ > 4096 || !(template_factor_ > 0) || !(search_factor_ > 0))
      throw Error("the procedure of bundle " + bundle.name + " has sizes or factors that no crop has");
  }

  Square cut(const cv::Mat& frame, double factor, std::uint8_t* out, int size) const {
    const Square square = whole_ ? whole_square_around(state_, factor) : square_around(state_, factor);
    // A square that touches the frame's last column or row has black there, as published.
    const int given_up = whole_ ? 0 : 1;
    crop(frame, square, cv::Size(frame.cols - given_up, frame.rows - given_up), cv::Scalar(), out, size);
    return square;
  }

  void start(const cv::Mat& frame, const Box& box) override {
    state_ = box;
    const int size = template_size_;
    std::vector<std::uint8_t> image(std::size_t(size) * size * 3), mask(std::size_t(size) * size);
    const Square square = cut(frame, template_factor_, image.data(), size);
    padding_mask(frame, square, mask.data(), size);
    const double side = std::max(1.0, std::ceil(template_factor_ * std::sqrt(state_.w * state_.h)));
    double w = state_.w / side, h = state_.h / side;
    const double middle = (size - 1) / (2.0 * size);
    float target[4] = {float(middle - w / 2), float(middle - h / 2), float(middle + w / 2), float(middle + h / 2)};
    if (bundle_.text("target_box", "xyxy") == "xywh") {
      w = state_.w * size / (side * (size - 1)), h = state_.h * size / (side * (size - 1));
      const double corner[4] = {0.5 - w / 2, 0.5 - h / 2, w, h};
      for (int i = 0; i < 4; ++i) target[i] = float(corner[i]);
    }
    show_template(image.data(), size, target, mask.data());
    encode();
  }

  void fill(const cv::Mat& frame) override {
    square_ = cut(frame, search_factor_, input("search")->data<std::uint8_t>(), search_size_);
    if (Tensor* mask = input("search_mask")) padding_mask(frame, square_, mask->data<std::uint8_t>(), search_size_);
  }

  // Pixels of the frame that the crop covers, through the factor that the published code divides by.
  double extent() const { return search_size_ / (double(search_size_) / double(square_.side)); }

  // The box, or the last one where it is held.
  Result decided(const Box& box, double score) const {
    return {hold_ && score < lost_below_ ? state_ : box, score, ""};
  }

  const double template_factor_, search_factor_, margin_;
  const int template_size_, search_size_;
  const bool whole_, hold_;
  Square square_;
};

class CenterTracker : public SquareTracker {
 public:
  CenterTracker(const Bundle& bundle, Graphs graphs)
      : SquareTracker(bundle, std::move(graphs)),
        score_(output("score", 0)),
        count_(step_->outputs.at("score")->info.count()),
        size_(output("size", 2 * count_)),
        offset_(output("offset", 2 * count_)),
        windowed_(bundle.text("reports", "score") == "windowed"),
        clip_(bundle.flag("clip", true)),
        whole_state_(bundle.text("state", "float") == "whole"),
        root_(bundle.text("map_back", "crop") == "root") {
    const int n = int(step_->outputs.at("score")->info.shape.back());
    if (std::int64_t(n) * n != count_) throw Error("score of bundle " + bundle.name + " is not square");
    window_ = bundle.text("window", "hann-open") == "none" ? std::vector<float>(std::size_t(count_), 1) : hann_open(n);
  }

 private:
  void start(const cv::Mat& frame, const Box& box) override {
    const auto least = [](double side) { return std::max(1.0, std::trunc(side)); };
    SquareTracker::start(
        frame, whole_state_ ? Box{std::trunc(box.x), std::trunc(box.y), least(box.w), least(box.h)} : box);
  }

  bool decode(const cv::Mat& frame, Result& found) override {
    if (!all_finite(score_, count_) || !all_finite(size_, 2 * count_) || !all_finite(offset_, 2 * count_)) return false;
    const Peak peak = decode_center(score_, size_, offset_, window_);
    Box box = whole_state_ ? whole_box(peak) : map_back(peak, state_, extent());
    if (clip_) box = clip(box, frame.cols, frame.rows, margin_);
    found = decided(box, windowed_ ? peak.windowed : peak.score);
    return true;
  }

  Box whole_box(const Peak& peak) const {
    const double side =
        root_ ? search_factor_ * std::floor(std::sqrt(state_.w * state_.h)) : double(square_.side);
    const double left = std::trunc(state_.x) + std::trunc((state_.w - side) / 2);
    const double top = std::trunc(state_.y) + std::trunc((state_.h - side) / 2);
    return {std::floor((peak.cx - peak.w / 2) * side + left), std::floor((peak.cy - peak.h / 2) * side + top),
            std::max(1.0, std::floor(peak.w * side)), std::max(1.0, std::floor(peak.h * side))};
  }

  const float* score_;
  std::int64_t count_;
  const float *size_, *offset_;
  bool windowed_, clip_, whole_state_, root_;
  std::vector<float> window_;
};

class BoxTracker : public SquareTracker {
 public:
  BoxTracker(const Bundle& bundle, Graphs graphs)
      : SquareTracker(bundle, std::move(graphs)),
        box_(output("box", 4)),
        score_(step_->outputs.count("score") ? output("score", 1) : nullptr) {}

 private:
  bool decode(const cv::Mat& frame, Result& found) override {
    if (!all_finite(box_, 4) || (score_ != nullptr && !all_finite(score_, 1))) return false;
    const double score = score_ == nullptr ? 1.0 : *score_;
    const Peak peak{score, score, box_[0], box_[1], box_[2], box_[3]};
    found = decided(clip(map_back(peak, state_, extent()), frame.cols, frame.rows, margin_), score);
    return true;
  }

  const float *box_, *score_;
};

}  // namespace

std::unique_ptr<Tracker> make_center(const Bundle& bundle, Graphs graphs) {
  return std::make_unique<CenterTracker>(bundle, std::move(graphs));
}

std::unique_ptr<Tracker> make_box(const Bundle& bundle, Graphs graphs) {
  return std::make_unique<BoxTracker>(bundle, std::move(graphs));
}

}  // namespace edgetrack
