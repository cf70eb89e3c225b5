// Track with a bundle, or prove it: see README.md beside this file.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/videoio.hpp>
#include <thread>

#include "edgetrack/golden.hpp"
#include "edgetrack/tracker.hpp"

namespace {

using edgetrack::Box;
using edgetrack::Error;
namespace fs = std::filesystem;

constexpr int kUsage = 2;
const char* const kHelp =
    "usage: %s track BUNDLE SOURCE --box X,Y,W,H -o FILE.csv|FILE.txt [--threads N] [--overwrite]\n"
    "       %s verify BUNDLE [--threads N]\n"
    "Track the target in BOX through a folder of images or a video, or compare a bundle's graphs with its record.\n";

struct Options {
  std::string bundle, source, output;
  Box box;
  int threads = int(std::max(1U, std::thread::hardware_concurrency()));
  bool overwrite = false, has_box = false;
};

struct UsageError : Error {
  using Error::Error;
};

Options parse(int count, char** words) {
  Options options;
  std::vector<std::string> plain;
  for (int i = 2; i < count; ++i) {
    const std::string word = words[i];
    const auto value = [&]() -> std::string {
      if (++i >= count) throw UsageError(word + " lacks its value");
      return words[i];
    };
    if (word == "--box") {
      const std::string text = value();
      char end;
      Box& box = options.box;
      if (std::sscanf(text.c_str(), "%lf,%lf,%lf,%lf%c", &box.x, &box.y, &box.w, &box.h, &end) != 4)
        throw UsageError("--box " + text + ": expected x,y,w,h in pixels, such as --box 120,80,64,48");
      options.has_box = true;
    } else if (word == "-o" || word == "--output") {
      options.output = value();
    } else if (word == "--threads") {
      const std::string text = value();
      char end;
      if (std::sscanf(text.c_str(), "%d%c", &options.threads, &end) != 1 || options.threads < 1)
        throw UsageError("--threads " + text + ": expected a number of 1 or more");
    } else if (word == "--overwrite") {
      options.overwrite = true;
    } else if (word.rfind("-", 0) == 0) {
      throw UsageError("there is no option " + word);
    } else {
      plain.push_back(word);
    }
  }
  const bool tracks = std::string(words[1]) == "track";
  if (plain.size() != (tracks ? 2U : 1U))
    throw UsageError(tracks ? "expected BUNDLE and SOURCE" : "expected one BUNDLE");
  options.bundle = plain[0];
  if (tracks) options.source = plain[1];
  return options;
}

// Frames of a folder of images, in order of their names, or of a video.
class Source {
 public:
  explicit Source(const fs::path& path) {
    if (fs::is_directory(path)) {
      for (const auto& entry : fs::directory_iterator(path)) {
        const std::string ending = entry.path().extension().string();
        if (ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".bmp")
          files_.push_back(entry.path());
      }
      std::sort(files_.begin(), files_.end());
      if (files_.empty()) throw Error(path.string() + " holds no .jpg, .jpeg, .png or .bmp");
    } else if (!fs::is_regular_file(path) || !video_.open(path.string())) {
      throw Error(path.string() + " is neither a folder of images nor a video that OpenCV reads");
    }
  }

  bool next(cv::Mat& frame) {
    if (files_.empty()) return video_.read(frame);
    if (at_ == files_.size()) return false;
    frame = cv::imread(files_[at_].string(), cv::IMREAD_COLOR);
    if (frame.empty()) throw Error(files_[at_].string() + " is no image that OpenCV reads");
    ++at_;
    return true;
  }

 private:
  std::vector<fs::path> files_;
  std::size_t at_ = 0;
  cv::VideoCapture video_;
};

int track(const Options& options) {
  const fs::path output = options.output;
  const bool table = output.extension() == ".csv";
  if (!options.has_box) throw UsageError("--box is missing");
  if (!table && output.extension() != ".txt") throw UsageError("-o: expected a file that ends in .csv or .txt");
  if (fs::exists(output) && !options.overwrite) throw UsageError(output.string() + " exists; --overwrite replaces it");
  const auto bundle = edgetrack::Bundle::read(options.bundle);
  const auto tracker = edgetrack::Tracker::open(bundle, options.threads);
  Source source(options.source);
  cv::Mat frame;
  if (!source.next(frame)) throw Error(options.source + " has no frame");
  tracker->init(frame, options.box);
  // Under another name until it is whole.
  const fs::path partial = output.string() + ".partial";
  std::FILE* file = std::fopen(partial.c_str(), "w");
  if (file == nullptr) throw Error(partial.string() + " cannot be written");
  const auto write = [&](int number, const edgetrack::Result& found, double ms) {
    const Box& b = found.box;
    if (table)
      std::fprintf(file, "%d,%.6f,%.6f,%.6f,%.6f,%.6f,%d,%.4f\n", number, b.x, b.y, b.w, b.h, found.score,
                   int(!found.lost.empty()), ms);
    else
      std::fprintf(file, "%.6f,%.6f,%.6f,%.6f\n", b.x, b.y, b.w, b.h);
  };
  if (table) std::fprintf(file, "frame,x,y,w,h,score,lost,track_ms\n");
  write(0, {options.box, 1, ""}, 0);
  std::vector<double> times;
  while (source.next(frame)) {
    const auto begin = std::chrono::steady_clock::now();
    const auto found = tracker->update(frame);
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
    write(int(times.size()), found, times.back());
  }
  const bool failed = std::ferror(file) != 0;  // asked first: a closed file cannot be
  if (std::fclose(file) != 0 || failed) throw Error(partial.string() + " cannot be written");
  fs::rename(partial, output);
  if (!times.empty()) {
    std::nth_element(times.begin(), times.begin() + std::ptrdiff_t(times.size() / 2), times.end());
    const double median = times[times.size() / 2];
    std::fprintf(stderr, "%zu frames with %s in %s: update %.2f ms median, %.1f frames/s\n", times.size() + 1,
                 bundle.name.c_str(), edgetrack::kBackend, median, 1000 / median);
  }
  return 0;
}

int verify(const Options& options) {
  const auto bundle = edgetrack::Bundle::read(options.bundle);
  const auto graphs = edgetrack::open_graphs(bundle, options.threads);
  bool ok = true;
  for (const auto& one : edgetrack::verify(bundle, graphs)) {
    ok = ok && one.ok();
    std::printf("%s %-40s %.3g, allowed %.3g\n", one.ok() ? "ok  " : "FAIL", one.name.c_str(), one.largest,
                one.allowed);
  }
  return ok ? 0 : 1;
}

}  // namespace

int main(int count, char** words) {
  const std::string verb = count > 1 ? words[1] : "";
  try {
    if (verb == "track") return track(parse(count, words));
    if (verb == "verify") return verify(parse(count, words));
    std::fprintf(verb == "--help" ? stdout : stderr, kHelp, words[0], words[0]);
    return verb == "--help" ? 0 : kUsage;
  } catch (const UsageError& fault) {
    std::fprintf(stderr, "%s: %s\n", words[0], fault.what());
    return kUsage;
  } catch (const std::exception& fault) {
    std::fprintf(stderr, "%s: %s\n", words[0], fault.what());
    return 1;
  }
}
