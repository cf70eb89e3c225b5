// A bundle's manifest (docs/bundle-spec.md, 2).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgetrack {

// What was given, what was expected, what to do; thrown by everything here.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct TensorInfo {
  std::string name, dtype;
  std::vector<std::int64_t> shape;

  std::int64_t count() const;
  std::size_t bytes() const;
  std::string text() const;
};

struct GraphInfo {
  std::string name, role, file;
  std::vector<TensorInfo> inputs, outputs;
};

// When the target counts as lost, by its score alone: below `threshold` in `frames` frames in a row.
struct LostModel {
  double weight, bias, threshold;
  int frames;

  // The confidence of a score, 0..1.
  double operator()(double score) const;
};

struct Bundle {
  std::filesystem::path folder;
  std::string name, family, target, precision;
  std::vector<GraphInfo> graphs;
  nlohmann::json procedure;
  std::optional<LostModel> lost;

  const GraphInfo& graph(const std::string& name) const;

  // A number or text of the procedure, `fallback` where it is absent; Error where it is of another type.
  double number(const char* key, double fallback) const;
  double number(const char* key) const;
  std::string text(const char* key, const std::string& fallback) const;
  bool flag(const char* key, bool fallback) const;

  // Read a bundle's folder. Names, shapes and sizes of files are checked, hashes are not: `edgetrack verify` does that.
  static Bundle read(const std::filesystem::path& folder);
};

}  // namespace edgetrack
