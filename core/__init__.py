"""The library: data sets, audio, inputs, networks, training and the store of runs. Importing it changes no settings."""
