// toml++ with one set of switches for all who use it.
#pragma once

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
// toml++ 3.3 asserts that "[" is followed by a name before it checks that, so a typo would abort (or with NDEBUG, be
// assumed away). Without its assertions it comes to its own check; tests/fuzz/fuzz_config stands guard over the rest.
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_ASSERT(expr) static_cast<void>(0)
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")
