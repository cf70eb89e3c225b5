// A tracker on its graphs: init on the first frame, update on every later one (docs/bundle-spec.md, 3 and 4).
#pragma once

#include <memory>
#include <opencv2/core.hpp>
#include <string>

#include "edgetrack/box.hpp"
#include "edgetrack/graph.hpp"

namespace edgetrack {

struct Result {
  Box box;           // in pixels of the frame
  double score = 0;  // the tracker's confidence, 0..1
  std::string lost;  // why the box should not be trusted; empty while the target is followed
};

class Tracker {
 public:
  virtual ~Tracker() = default;

  // Open a bundle: families center (smat, ostrack), box, distances and nanotrack (official), without memory: Error says
  // what a bundle asks for beyond that.
  static std::unique_ptr<Tracker> open(const Bundle& bundle, int threads);

  // Start to follow what is in `box`; the frame is uint8 BGR.
  void init(const cv::Mat& frame, const Box& box);

  // Find it in the next frame.
  Result update(const cv::Mat& frame);

 protected:
  Tracker(const Bundle& bundle, Graphs graphs);

  virtual void start(const cv::Mat& frame, const Box& box) = 0;
  // Write the inputs of `step`.
  virtual void fill(const cv::Mat& frame) = 0;
  // The outputs of `step` to the next state; false where a number that decides is not finite.
  virtual bool decode(const cv::Mat& frame, Result& found) = 0;

  // The input of that name of `step`, or nothing.
  Tensor* input(const std::string& name) const;
  // The output of that name, float32 of that many numbers, else Error.
  const float* output(const std::string& name, std::int64_t count) const;
  // Run the init graphs in order and hand on what they return.
  void encode();
  // Write the same template into every graph's template inputs; the boxes in it into `target_box`.
  void show_template(const std::uint8_t* crop, int size, const float box[4], const std::uint8_t* mask);

  const Bundle bundle_;
  Graphs graphs_;
  Graph* step_ = nullptr;
  Box state_;
  double lost_below_ = 0;

 private:
  // Why the target is lost, by the frames so far; a frame that failed has confidence 0.
  std::string judge(const LostModel& model, double confidence);

  bool is_lost_ = false;
  int against_ = 0;
};

}  // namespace edgetrack
