#include <openvino/openvino.hpp>

#include "edgetrack/graph.hpp"

namespace edgetrack {
namespace {

// Kept to the end: two cores that are unloaded in another order leave a signal stack that is gone.
ov::Core& core() {
  static ov::Core* const one = new ov::Core;
  return *one;
}

const std::map<std::string, ov::element::Type> kTypes = {{"uint8", ov::element::u8},    {"int8", ov::element::i8},
                                                         {"int32", ov::element::i32},   {"int64", ov::element::i64},
                                                         {"float16", ov::element::f16}, {"float32", ov::element::f32}};

class OpenVinoGraph : public Graph {
 public:
  OpenVinoGraph(const Bundle& bundle, const GraphInfo& info, int threads) : Graph(info) {
    // Unset, OpenVINO computes FP32 graphs in bfloat16 on processors that have it.
    const auto precision = bundle.precision == "bf16" ? ov::element::bf16 : ov::element::f32;
    auto compiled = core().compile_model(
        (bundle.folder / info.file).string(), "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
        ov::num_streams(1), ov::inference_num_threads(threads), ov::hint::inference_precision(precision));
    request_ = compiled.create_infer_request();
    for (const auto* side : {&inputs, &outputs}) {
      for (const auto& [name, tensor] : *side) {
        const ov::Shape shape(tensor->info.shape.begin(), tensor->info.shape.end());
        // Refuses another type or shape than the model's.
        request_.set_tensor(name, ov::Tensor(kTypes.at(tensor->info.dtype), shape, tensor->data()));
      }
    }
  }

  void run() override { request_.infer(); }

 private:
  ov::InferRequest request_;
};

}  // namespace

const char* const kBackend = "OpenVINO";
const char* const kTarget = "openvino";

std::unique_ptr<Graph> open_graph(const Bundle& bundle, const GraphInfo& info, int threads) {
  try {
    return std::make_unique<OpenVinoGraph>(bundle, info, threads);
  } catch (const ov::Exception& fault) {
    throw Error("OpenVINO cannot open " + info.file + ": " + fault.what());
  }
}

}  // namespace edgetrack
