#include <onnxruntime_cxx_api.h>

#include "edgetrack/graph.hpp"

namespace edgetrack {
namespace {

const std::map<std::string, ONNXTensorElementDataType> kTypes = {
    {"uint8", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},     {"int8", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},
    {"int32", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},     {"int64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"float16", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16}, {"float32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};

Ort::Env& environment() {
  static Ort::Env one(ORT_LOGGING_LEVEL_ERROR, "edgetrack");
  return one;
}

class OnnxGraph : public Graph {
 public:
  OnnxGraph(const Bundle& bundle, const GraphInfo& info, int threads) : Graph(info) {
    Ort::SessionOptions options;
    options.AddConfigEntry("session.load_model_format", "ONNX");
    options.SetIntraOpNumThreads(threads);
    options.SetInterOpNumThreads(1);
    session_ = open((bundle.folder / info.file).c_str(), options);
    binding_ = std::make_unique<Ort::IoBinding>(session_);
    check(session_.GetInputCount(), inputs.size());
    check(session_.GetOutputCount(), outputs.size());
    for (const auto& [name, tensor] : inputs) binding_->BindInput(name.c_str(), value(*tensor));
    for (const auto& [name, tensor] : outputs) binding_->BindOutput(name.c_str(), value(*tensor));
  }

  void run() override { session_.Run(Ort::RunOptions{nullptr}, *binding_); }

 private:
  // Without VNNI, sums of INT8 would saturate. Files of earlier versions may share weights, and open without the option alone.
  static Ort::Session open(const ORTCHAR_T* file, const Ort::SessionOptions& options) {
    auto exact = options.Clone();
    exact.AddConfigEntry("session.x64quantprecision", "1");
    try {
      return Ort::Session(environment(), file, exact);
    } catch (const Ort::Exception&) {
      return Ort::Session(environment(), file, options);
    }
  }

  void check(std::size_t found, std::size_t stated) const {
    if (found != stated) throw Error(info.file + " has other inputs or outputs than the manifest says");
  }

  // A view of a tensor's memory; running refuses another type or shape than the model's.
  static Ort::Value value(const Tensor& tensor) {
    static const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto& shape = tensor.info.shape;
    return Ort::Value::CreateTensor(memory, tensor.data(), tensor.info.bytes(), shape.data(), shape.size(),
                                    kTypes.at(tensor.info.dtype));
  }

  Ort::Session session_{nullptr};
  std::unique_ptr<Ort::IoBinding> binding_;
};

}  // namespace

const char* const kBackend = "ONNX Runtime";
const char* const kTarget = "onnx";

std::unique_ptr<Graph> open_graph(const Bundle& bundle, const GraphInfo& info, int threads) {
  try {
    return std::make_unique<OnnxGraph>(bundle, info, threads);
  } catch (const Ort::Exception& fault) {
    throw Error("ONNX Runtime cannot open " + info.file + ": " + fault.what());
  }
}

}  // namespace edgetrack
