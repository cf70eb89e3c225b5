// The record that a bundle is proven by (docs/bundle-spec.md, 6).
#pragma once

#include <string>
#include <vector>

#include "edgetrack/graph.hpp"

namespace edgetrack {

struct Comparison {
  std::string name;
  double largest, allowed;  // of |found - recorded| - rtol |recorded|, and what it may be
  bool ok() const { return largest <= allowed; }
};

// Run every graph on the recorded inputs and compare the outputs with the recorded ones.
std::vector<Comparison> verify(const Bundle& bundle, const Graphs& graphs);

}  // namespace edgetrack
