# sourcesep on the CPU:
#   docker build --tag sourcesep .
#   docker run --rm --volume "$PWD:/music" sourcesep sourcesep_separate /music/song.wav --output_dir=/music/separated
# With an NVIDIA GPU and its container toolkit: docker build --build-arg TENSORFLOW='tensorflow[and-cuda]' ...,
# then docker run --gpus=all ...
FROM python:3.12-slim

RUN apt-get update -qq \
    && apt-get install --yes --quiet --no-install-recommends libfluidsynth3 fluid-soundfont-gm \
    && rm -rf /var/lib/apt/lists/*

ARG TENSORFLOW=tensorflow
WORKDIR /sourcesep
COPY . .
RUN pip install --no-cache-dir "$TENSORFLOW" ".[train]"
