"""Where the built-in models will lie (GGUF files beside this one), which tools/models trains; there are none yet."""
