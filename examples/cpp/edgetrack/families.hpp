// The families' trackers, made on graphs that are open.
#pragma once

#include "edgetrack/tracker.hpp"

namespace edgetrack {

std::unique_ptr<Tracker> make_center(const Bundle& bundle, Graphs graphs);
std::unique_ptr<Tracker> make_box(const Bundle& bundle, Graphs graphs);
std::unique_ptr<Tracker> make_distances(const Bundle& bundle, Graphs graphs, bool logits);

}  // namespace edgetrack
