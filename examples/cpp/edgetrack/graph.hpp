// A graph that is open in a back end; each back end is one file, and a program links one of them.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "edgetrack/bundle.hpp"

namespace edgetrack {

// Memory of an input or output, shared with the back end.
class Tensor {
 public:
  explicit Tensor(const TensorInfo& info) : info(info), memory_(info.bytes() + 63) {}

  template <class T = void>
  T* data() const {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    return reinterpret_cast<T*>((address + 63) / 64 * 64);
  }

  TensorInfo info;

 private:
  mutable std::vector<std::byte> memory_;
};

class Graph {
 public:
  explicit Graph(const GraphInfo& info) : info(info) {
    for (const auto& tensor : info.inputs) inputs.emplace(tensor.name, std::make_unique<Tensor>(tensor));
    for (const auto& tensor : info.outputs) outputs.emplace(tensor.name, std::make_unique<Tensor>(tensor));
  }
  virtual ~Graph() = default;

  // From `inputs` to `outputs`.
  virtual void run() = 0;

  const GraphInfo info;
  std::map<std::string, std::unique_ptr<Tensor>> inputs, outputs;
};

// The linked back end: its name, the bundles that it runs, and how it opens a graph.
extern const char* const kBackend;
extern const char* const kTarget;
std::unique_ptr<Graph> open_graph(const Bundle& bundle, const GraphInfo& info, int threads);

// All graphs of a bundle, in order.
using Graphs = std::vector<std::unique_ptr<Graph>>;
inline Graphs open_graphs(const Bundle& bundle, int threads) {
  if (bundle.target != kTarget)
    throw Error("bundle " + bundle.name + " is for " + bundle.target + "; this program runs bundles for " + kTarget +
                " in " + kBackend);
  Graphs graphs;
  for (const auto& info : bundle.graphs) graphs.push_back(open_graph(bundle, info, threads));
  return graphs;
}

}  // namespace edgetrack
