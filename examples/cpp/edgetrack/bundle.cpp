#include "edgetrack/bundle.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <regex>

namespace edgetrack {
namespace {

constexpr std::uintmax_t kLargestManifest = 4 << 20;
constexpr std::int64_t kLargestTensor = 256 << 20;
const std::map<std::string, int> kItemBytes = {{"uint8", 1}, {"int8", 1},    {"int32", 4},
                                               {"int64", 8}, {"float16", 2}, {"float32", 4}};

std::vector<TensorInfo> tensors(const nlohmann::json& listed) {
  std::vector<TensorInfo> found;
  for (const auto& one : listed) {
    TensorInfo tensor{one.at("name"), one.at("dtype"), one.at("shape").get<std::vector<std::int64_t>>()};
    if (!kItemBytes.count(tensor.dtype))
      throw Error("tensor " + tensor.name + " has the unknown dtype " + tensor.dtype);
    std::int64_t count = kItemBytes.at(tensor.dtype);
    for (const auto length : tensor.shape) {
      if (length < 1 || length > kLargestTensor / count)
        throw Error("tensor " + tensor.name + " has no shape that can be run: " + tensor.text());
      count *= length;
    }
    found.push_back(tensor);
  }
  return found;
}

LostModel lost_model(const nlohmann::json& model, const std::string& path) {
  const auto& weights = model.at("weights");
  if (weights.size() != 1 || !weights.contains("score"))
    throw Error(path + ": its losses are found by a model of several features, of which this reader has the score "
                       "alone; use the bundle that it was made from");
  return {weights.at("score"), model.value("bias", 0.0), model.at("threshold"), model.value("frames", 1)};
}

}  // namespace

double LostModel::operator()(double score) const {
  const double known = std::min(std::max(score, 1e-6), 1 - 1e-6);
  return 1 / (1 + std::exp(-(bias + weight * std::log(known / (1 - known)))));
}

std::int64_t TensorInfo::count() const {
  std::int64_t count = 1;
  for (const auto length : shape) count *= length;
  return count;
}

std::size_t TensorInfo::bytes() const { return std::size_t(count()) * kItemBytes.at(dtype); }

std::string TensorInfo::text() const {
  std::string text = dtype + " (";
  for (const auto length : shape) text += std::to_string(length) + ", ";
  return (shape.empty() ? text : text.substr(0, text.size() - 2)) + ")";
}

const GraphInfo& Bundle::graph(const std::string& wanted) const {
  for (const auto& graph : graphs)
    if (graph.name == wanted) return graph;
  throw Error("bundle " + name + " has no graph " + wanted);
}

double Bundle::number(const char* key, double fallback) const {
  if (!procedure.contains(key)) return fallback;
  const auto& value = procedure.at(key);
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    throw Error(std::string("procedure.") + key + " of bundle " + name + " is no number");
  return value.get<double>();
}

double Bundle::number(const char* key) const {
  if (!procedure.contains(key)) throw Error(std::string("the procedure of bundle ") + name + " lacks " + key);
  return number(key, 0);
}

std::string Bundle::text(const char* key, const std::string& fallback) const {
  if (!procedure.contains(key)) return fallback;
  if (!procedure.at(key).is_string()) throw Error(std::string("procedure.") + key + " is no text");
  return procedure.at(key).get<std::string>();
}

bool Bundle::flag(const char* key, bool fallback) const {
  if (!procedure.contains(key)) return fallback;
  if (!procedure.at(key).is_boolean()) throw Error(std::string("procedure.") + key + " is neither true nor false");
  return procedure.at(key).get<bool>();
}

Bundle Bundle::read(const std::filesystem::path& folder) {
  const auto path = folder / "manifest.json";
  std::error_code absent;
  const auto size = std::filesystem::file_size(path, absent);
  if (absent) throw Error(folder.string() + ": no folder with a manifest.json; unpack a zip with: edgetrack unpack");
  if (size > kLargestManifest) throw Error(path.string() + " is larger than the 4 MiB that a manifest may have");
  try {
    std::ifstream file(path, std::ios::binary);
    const auto manifest = nlohmann::json::parse(file);
    if (manifest.at("schema") != 1) throw Error(path.string() + ": expected schema 1; use a newer reader");
    Bundle bundle{folder,
                  manifest.at("name"),
                  manifest.contains("family") ? manifest.at("family") : manifest.at("tracker"),
                  manifest.at("target"),
                  manifest.at("precision"),
                  {},
                  manifest.at("procedure"),
                  {}};
    if (manifest.contains("lost")) bundle.lost = lost_model(manifest.at("lost"), path.string());
    const std::regex plain("[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*");
    for (const auto& [name, info] : manifest.at("files").items()) {
      if (!std::regex_match(name, plain)) throw Error("the file name " + name + " is none of a bundle");
      const auto found = std::filesystem::file_size(folder / name, absent);
      if (absent || found != info.at("size").get<std::uintmax_t>())
        throw Error(name + " of bundle " + bundle.name + " is missing or has another size than the manifest says");
    }
    for (const auto& one : manifest.at("graphs")) {
      GraphInfo graph{one.at("name"), one.at("role"), one.at("file"), tensors(one.at("inputs")),
                      tensors(one.at("outputs"))};
      if (!manifest.at("files").contains(graph.file)) throw Error("the manifest lists no file " + graph.file);
      bundle.graphs.push_back(graph);
    }
    return bundle;
  } catch (const nlohmann::json::exception& fault) {
    throw Error(path.string() + " is no manifest of schema 1: " + fault.what());
  }
}

}  // namespace edgetrack
