"""Everything between a file and a tensor: video, faces, labelled data sets, simulators."""
