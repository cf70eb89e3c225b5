#include "edgetrack/golden.hpp"

#include <zip.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <set>

namespace edgetrack {
namespace {

// A graph's arrays of one sample, checked against the manifest while they are read.
class Record {
 public:
  explicit Record(const std::filesystem::path& path) {
    int fault = 0;
    archive_.reset(zip_open(path.c_str(), ZIP_RDONLY, &fault));
    if (archive_ == nullptr) throw Error(path.string() + " cannot be read as a zip");
  }

  // The samples' names.
  std::set<std::string> samples() const {
    std::set<std::string> found;
    for (zip_int64_t i = 0; i < zip_get_num_entries(archive_.get(), 0); ++i) {
      const std::string name = zip_get_name(archive_.get(), zip_uint64_t(i), 0);
      found.insert(name.substr(0, name.find('/')));
    }
    return found;
  }

  bool has(const std::string& name) const { return zip_name_locate(archive_.get(), name.c_str(), 0) >= 0; }

  // The data of a .npy entry: the tensor's bytes at its end, behind a header that names its type and shape.
  std::vector<char> read(const std::string& name, const TensorInfo& info) const {
    zip_stat_t stat;
    if (zip_stat(archive_.get(), name.c_str(), 0, &stat) != 0 || stat.size < info.bytes() ||
        stat.size > info.bytes() + 4096)
      throw Error("golden.npz has no array " + name + " of the size that the manifest states");
    std::vector<char> data(stat.size);
    const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> file(zip_fopen(archive_.get(), name.c_str(), 0),
                                                                 zip_fclose);
    if (file == nullptr || zip_fread(file.get(), data.data(), stat.size) != zip_int64_t(stat.size))
      throw Error(name + " of golden.npz is damaged");
    static const std::map<std::string, std::string> kKinds = {{"uint8", "|u1"}, {"int8", "|i1"},    {"int32", "<i4"},
                                                              {"int64", "<i8"}, {"float16", "<f2"}, {"float32", "<f4"}};
    std::string shape = "(";
    for (const auto length : info.shape) shape += std::to_string(length) + (info.shape.size() == 1 ? "," : ", ");
    if (info.shape.size() > 1) shape.resize(shape.size() - 2);
    const std::string header(data.data(), stat.size - info.bytes());
    if (header.compare(0, 6, "\x93NUMPY") != 0 || header.find("'fortran_order': False") == std::string::npos ||
        header.find("'" + kKinds.at(info.dtype) + "'") == std::string::npos ||
        header.find("'shape': " + shape + ")") == std::string::npos)
      throw Error(name + " of golden.npz is not the array " + info.text() + " of the manifest");
    return {data.end() - std::ptrdiff_t(info.bytes()), data.end()};
  }

 private:
  struct Close {
    void operator()(zip_t* archive) const { zip_discard(archive); }
  };
  std::unique_ptr<zip_t, Close> archive_;
};

float as_float(const char* data, const std::string& dtype, std::size_t index) {
  if (dtype != "float32") throw Error("this reader compares outputs of float32, not of " + dtype);
  float value;
  std::memcpy(&value, data + index * sizeof value, sizeof value);
  return value;
}

}  // namespace

std::vector<Comparison> verify(const Bundle& bundle, const Graphs& graphs) {
  std::ifstream file(bundle.folder / "parity.json", std::ios::binary);
  double atol, rtol, peak;
  try {
    const auto parity = nlohmann::json::parse(file);
    const auto& limits = parity.contains("allowed") ? parity.at("allowed") : parity.at("comparisons").at(0);
    atol = limits.at("atol"), rtol = limits.at("rtol"), peak = limits.value("peak", 0.0);
  } catch (const nlohmann::json::exception& fault) {
    throw Error(std::string("parity.json cannot be read: ") + fault.what());
  }
  const Record record(bundle.folder / "golden.npz");
  std::vector<Comparison> found;
  for (const auto& graph : graphs) {
    for (const auto& sample : record.samples()) {
      const std::string base = sample + "/" + graph->info.name;
      if (!record.has(base + "/out/" + graph->info.outputs.at(0).name + ".npy")) continue;
      for (const auto& [name, tensor] : graph->inputs) {
        const auto data = record.read(base + "/in/" + name + ".npy", tensor->info);
        std::memcpy(tensor->data(), data.data(), data.size());
      }
      graph->run();
      for (const auto& [name, tensor] : graph->outputs) {
        const auto data = record.read(base + "/out/" + name + ".npy", tensor->info);
        double largest = 0, reference = 0;
        for (std::size_t i = 0; i < std::size_t(tensor->info.count()); ++i) {
          const double b = as_float(data.data(), tensor->info.dtype, i), a = tensor->data<float>()[i];
          const double excess = std::abs(a - b) - rtol * std::abs(b);
          // NaN is no small difference.
          largest = std::isnan(excess) ? HUGE_VAL : std::max(largest, excess);
          reference = std::max(reference, std::abs(b));
        }
        found.push_back({graph->info.name + "/" + name + " #" + sample, largest, atol + peak * reference});
      }
    }
  }
  if (found.empty()) throw Error("golden.npz of bundle " + bundle.name + " records no graph of it");
  return found;
}

}  // namespace edgetrack
