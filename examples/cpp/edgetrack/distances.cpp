// Families distances and nanotrack: a square with context, distances to the edges (docs/bundle-spec.md, 4.3 and 4.4).
#include "edgetrack/crop.hpp"
#include "edgetrack/decode.hpp"
#include "edgetrack/families.hpp"

namespace edgetrack {
namespace {

class DistancesTracker : public Tracker {
 public:
  // logits: NanoTrack's outputs and roundings.
  DistancesTracker(const Bundle& bundle, Graphs graphs, bool logits)
      : Tracker(bundle, std::move(graphs)),
        logits_(logits),
        half_up_(logits || bundle.text("origin", "half-even") == "half-up"),
        template_size_(int(bundle.number("template_size"))),
        search_size_(int(bundle.number("search_size"))),
        smoothing_(logits ? 1 : bundle.number("size_smoothing", 2)),
        rate_(bundle.number("size_rate")),
        smallest_(bundle.number("smallest_side", 10)),
        score_(output(logits ? "cls" : "score", 0)),
        reg_(output(logits ? "loc" : "reg", 0)),
        cells_(int(step_->outputs.at(logits ? "cls" : "score")->info.shape.back())),
        decoder_(cells_, bundle.number("window_influence"), bundle.number("penalty_k"), int(bundle.number("stride"))) {
    const std::int64_t count = std::int64_t(cells_) * cells_;
    output(logits ? "cls" : "score", logits ? 2 * count : count);
    output(logits ? "loc" : "reg", 4 * count);
    if (cells_ < 2) throw Error("the maps of bundle " + bundle.name + " have one cell");
    const Tensor* search = input("search");
    const std::vector<std::int64_t> shape = {search_size_, search_size_, 3};
    if (search == nullptr || search->info.dtype != "uint8" || search->info.shape != shape)
      throw Error("bundle " + bundle.name + " has no input search of the size that its procedure states");
    if (template_size_ < 8 || template_size_ > search_size_)
      throw Error("the procedure of bundle " + bundle.name + " has a template_size that no crop has");
  }

 private:
  void start(const cv::Mat& frame, const Box& box) override {
    const cv::Scalar mean = cv::mean(frame);
    for (int k = 0; k < 3; ++k) fill_[k] = std::trunc(mean[k]);
    first_ = frame.size();
    cx_ = box.center_x(), cy_ = box.center_y(), w_ = box.w, h_ = box.h;
    std::vector<std::uint8_t> image(std::size_t(template_size_) * template_size_ * 3);
    crop(frame, around(std::nearbyint(size_with_context(w_, h_))), frame.size(), fill_, image.data(), template_size_);
    const float unused[4] = {0, 0, 0, 0};
    show_template(image.data(), template_size_, unused, nullptr);
    encode();
    state_ = Box::from_center(cx_, cy_, w_, h_);
  }

  Square around(double side) const {
    side = std::max(1.0, side);
    const auto origin = [this, side](double center) {
      const double corner = center - (side + 1) / 2;
      return std::int64_t(half_up_ ? std::floor(corner + 0.5) : std::nearbyint(corner));
    };
    return {origin(cx_), origin(cy_), std::int64_t(side)};
  }

  void fill(const cv::Mat& frame) override {
    const double size = size_with_context(w_, h_);
    scale_ = template_size_ / size;
    const double side = size * (double(search_size_) / template_size_);
    const Square square = around(logits_ ? std::nearbyint(side) : std::floor(side + 0.5));
    crop(frame, square, frame.size(), fill_, input("search")->data<std::uint8_t>(), search_size_);
  }

  bool decode(const cv::Mat& frame, Result& found) override {
    const int count = cells_ * cells_;
    std::vector<double> score(score_, score_ + count);
    std::vector<float> distances(reg_, reg_ + 4 * count);
    if (logits_) {
      // The logits' difference in float32, as they are.
      for (int i = 0; i < count; ++i) score[i] = 1 / (1 + std::exp(double(score_[i] - score_[count + i])));
      for (float& value : distances) value = std::exp(value);
    }
    for (const double value : score)
      if (!std::isfinite(value)) return false;
    for (float& value : distances) {
      if (!std::isfinite(value)) return false;
      if (!logits_) value = std::max(value, 1e-6F);
    }
    const auto best = decoder_(score, distances, size_with_context(w_ * scale_, h_ * scale_), w_ / h_);
    if (!best || !(best->w > 0) || !(best->h > 0)) return false;
    const double rate = std::pow(best->weight * rate_, smoothing_);
    // NanoTrack keeps to this frame, the others to the first.
    const cv::Size held = logits_ ? frame.size() : first_;
    const auto side = [this](double value, int most) { return std::max(smallest_, std::min(value, double(most))); };
    cx_ = std::max(0.0, std::min(cx_ + best->x / scale_, double(held.width)));
    cy_ = std::max(0.0, std::min(cy_ + best->y / scale_, double(held.height)));
    w_ = side((1 - rate) * w_ + rate * (best->w / scale_), held.width);
    h_ = side((1 - rate) * h_ + rate * (best->h / scale_), held.height);
    found = {Box::from_center(cx_, cy_, w_, h_), best->score, ""};
    return true;
  }

  const bool logits_, half_up_;
  const int template_size_, search_size_;
  const double smoothing_, rate_, smallest_;
  const float *score_, *reg_;
  const int cells_;
  const DistanceDecoder decoder_;
  cv::Scalar fill_;
  cv::Size first_;
  double cx_ = 0, cy_ = 0, w_ = 1, h_ = 1, scale_ = 1;
};

}  // namespace

std::unique_ptr<Tracker> make_distances(const Bundle& bundle, Graphs graphs, bool logits) {
  return std::make_unique<DistancesTracker>(bundle, std::move(graphs), logits);
}

}  // namespace edgetrack
