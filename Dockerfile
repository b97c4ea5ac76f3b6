# The command line of napari-diffseg, without the window.
#
#     docker build -t napari-diffseg .
#     docker run --rm -v "$PWD:/data" napari-diffseg segment ct.nii.gz --labels painted.nii.gz \
#         --slices 10,27,49,92 -o mask.seg.nrrd
#
# For an NVIDIA GPU: the default build of torch on Linux brings CUDA, so `docker run --gpus all` is
# enough. For a small image without CUDA, name an index with torch's CPU build:
#     docker build --build-arg PIP_EXTRA_INDEX_URL=... -t napari-diffseg .
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
ARG PIP_EXTRA_INDEX_URL=
# Git's data stay outside: the version has to be given to be another than the fallback.
ARG SETUPTOOLS_SCM_PRETEND_VERSION=
WORKDIR /source
COPY . .
RUN python3 -m venv /opt/app \
    && /opt/app/bin/pip install --no-cache-dir .

FROM python:${PYTHON}-slim
COPY --from=build /opt/app /opt/app
ENV PATH=/opt/app/bin:$PATH \
    NAPARI_DIFFSEG_HOME=/data/.napari-diffseg
RUN useradd --create-home --uid 1000 app
USER 1000
WORKDIR /data
ENTRYPOINT ["napari-diffseg"]
CMD ["--help"]
