#include "edgetrack/tracker.hpp"

#include <cmath>
#include <cstring>
#include <set>

#include "edgetrack/families.hpp"

namespace edgetrack {

Tracker::Tracker(const Bundle& bundle, Graphs graphs) : bundle_(bundle), graphs_(std::move(graphs)) {
  for (auto& graph : graphs_) {
    if (graph->info.role == "step" && step_ == nullptr) step_ = graph.get();
    if (graph->info.role != "step" && graph->info.role != "init")
      throw Error("graph " + graph->info.name + " has role " + graph->info.role + ", which this reader does not run");
  }
  if (step_ == nullptr) throw Error("bundle " + bundle.name + " has no graph that runs every frame");
  // A model of losses takes its place, but where the last box is held below it.
  if (bundle.lost && bundle.text("on_lost", "flag") != "hold")
    lost_below_ = -HUGE_VAL;
  else
    lost_below_ = bundle.number("lost_below", 0);
}

void Tracker::init(const cv::Mat& frame, const Box& box) {
  if (frame.empty() || frame.type() != CV_8UC3) throw Error("a frame is not uint8 with three channels");
  const bool inside = box.x < frame.cols && box.y < frame.rows && box.x + box.w > 0 && box.y + box.h > 0;
  if (!box.can_be_followed() || box.w < 1e-6 || box.h < 1e-6 || !inside)
    throw Error("the box has no area in the frame; give x,y,w,h in pixels");
  is_lost_ = false;
  against_ = 0;
  start(frame, box);
}

Result Tracker::update(const cv::Mat& frame) {
  if (frame.empty() || frame.type() != CV_8UC3) throw Error("a frame is not uint8 with three channels");
  fill(frame);
  step_->run();
  Result found;
  if (!decode(frame, found)) {
    found = {state_, 0, "the graph returned NaN or infinity; the last box is kept"};
  } else if (!found.box.can_be_followed()) {
    found = {state_, 0, "the box found is none that a frame can hold; the last box is kept"};
  } else if (found.score < lost_below_) {
    found.lost = "score " + std::to_string(found.score) + " is below " + std::to_string(lost_below_);
  }
  if (bundle_.lost) {
    const std::string judged = judge(*bundle_.lost, found.lost.empty() ? (*bundle_.lost)(found.score) : 0);
    if (found.lost.empty()) found.lost = judged;
  }
  state_ = found.box;
  return found;
}

std::string Tracker::judge(const LostModel& model, double confidence) {
  const bool low = confidence < model.threshold;
  against_ = low != is_lost_ ? against_ + 1 : 0;
  if (against_ >= model.frames) is_lost_ = low, against_ = 0;
  return is_lost_ ? "confidence " + std::to_string(confidence) + (low ? " is too low" : " is not yet steady") : "";
}

Tensor* Tracker::input(const std::string& name) const {
  const auto found = step_->inputs.find(name);
  return found == step_->inputs.end() ? nullptr : found->second.get();
}

const float* Tracker::output(const std::string& name, std::int64_t count) const {
  const auto found = step_->outputs.find(name);
  if (found == step_->outputs.end()) throw Error("bundle " + bundle_.name + " has no output " + name);
  const auto& info = found->second->info;
  if (info.dtype != "float32" || (count > 0 && info.count() != count))
    throw Error("output " + name + " of bundle " + bundle_.name + " is " + info.text() + ", expected float32 of " +
                std::to_string(count) + " numbers");
  return found->second->data<float>();
}

void Tracker::encode() {
  for (auto& graph : graphs_) {
    if (graph->info.role != "init") continue;
    graph->run();
    for (const auto& [name, made] : graph->outputs) {
      for (auto& other : graphs_) {
        const auto taker = other->inputs.find(name);
        if (taker == other->inputs.end()) continue;
        if (taker->second->info.bytes() != made->info.bytes()) throw Error("graphs do not agree on " + name);
        std::memcpy(taker->second->data(), made->data(), made->info.bytes());
      }
    }
  }
}

void Tracker::show_template(const std::uint8_t* crop, int size, const float box[4], const std::uint8_t* mask) {
  static const std::set<std::string> kImages = {"template", "online_template", "templates"};
  std::set<std::string> made;
  const auto repeat = [](Tensor& to, const void* from, std::size_t bytes, const char* dtype) {
    const bool many = to.info.name == "templates" || to.info.name == "target_box";
    if (to.info.dtype != dtype || to.info.bytes() % bytes || (to.info.bytes() != bytes && !many))
      throw Error("input " + to.info.name + " is " + to.info.text() + ", which does not suit the template's size");
    for (std::size_t at = 0; at < to.info.bytes(); at += bytes) std::memcpy(to.data<std::uint8_t>() + at, from, bytes);
  };
  for (auto& graph : graphs_) {
    for (auto& [name, tensor] : graph->inputs) {
      if (kImages.count(name)) {
        repeat(*tensor, crop, std::size_t(size) * size * 3, "uint8");
      } else if (name == "target_box") {
        repeat(*tensor, box, 4 * sizeof(float), "float32");
      } else if (name == "template_mask" && mask != nullptr) {
        repeat(*tensor, mask, std::size_t(size) * size, "uint8");
      } else if (name != "search" && name != "search_mask" && !made.count(name)) {
        throw Error("nothing fills input " + name + " of graph " + graph->info.name);
      }
    }
    if (graph->info.role == "init")
      for (const auto& output : graph->outputs) made.insert(output.first);
  }
}

std::unique_ptr<Tracker> Tracker::open(const Bundle& bundle, int threads) {
  static const std::set<std::string> kCenter = {"center", "smat", "ostrack"};
  static const std::set<std::string> kNano = {"nanotrack", "nanotrack_v2", "nanotrack_v3"};
  const std::string update = bundle.text("update", "fixed");
  if (update != "fixed")
    throw Error("bundle " + bundle.name + " renews its template (update " + update + "), which this reader does not");
  Graphs graphs = open_graphs(bundle, threads);
  if (kCenter.count(bundle.family)) return make_center(bundle, std::move(graphs));
  if (bundle.family == "box") return make_box(bundle, std::move(graphs));
  if (bundle.family == "distances") return make_distances(bundle, std::move(graphs), false);
  if (kNano.count(bundle.family)) {
    if (bundle.text("variant", "") != "official") throw Error("of NanoTrack, this reader has the official variant");
    return make_distances(bundle, std::move(graphs), true);
  }
  throw Error("family " + bundle.family +
              " is none of center, smat, ostrack, box, distances, nanotrack; it needs edgetrack");
}

}  // namespace edgetrack
