# semires in an image; docs/docker.md says how it is built and run.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
# git is not here: the version is told, a tag's without its v.
ARG VERSION=0.1.dev0
ENV SETUPTOOLS_SCM_PRETEND_VERSION_FOR_SEMIRES=${VERSION}
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
# Which torch, as uv calls them: cpu, or for NVIDIA's GPUs cu126, cu128, cu130, ...
ARG TORCH=cpu
ARG EXTRAS=remote,hub,onnx
# Triton, on a GPU, compiles with gcc. Debian keeps no older versions that could be named here.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --no-cache --torch-backend "${TORCH}" --constraint /wheels/constraints.txt \
        "semires[${EXTRAS}] @ file://$(echo /wheels/*.whl)" \
    && rm -r /wheels
# For whoever it is run as: --user names people who have no home here.
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["semires"]
CMD ["--help"]
