# docker build -t cnn-trainer .
# docker run --rm -v "$PWD/runs:/runs" cnn-trainer train configs/mnist.yaml
# With an NVIDIA GPU: docker build --build-arg DEVICE=gpu -t cnn-trainer:gpu . and docker run --gpus all ...
# A server without TensorFlow: docker build --target serve -t cnn-trainer-serve .
# docker run --rm -p 8501:8501 -v "$PWD/runs/RUN/export:/model:ro" cnn-trainer-serve
ARG BASE_IMAGE=python:3.11-slim-bookworm

# The packages of a lock. They change rarely, so a change of the program rebuilds and ships only a layer of kilobytes.
FROM ${BASE_IMAGE} AS serve-dependencies
COPY requirements/serve.txt /requirements.txt
# The environment has no pip: the base image's pip installs into it.
# Bytecode is compiled here, because a read-only image cannot store it later. unchecked-hash: the sources will not change.
RUN python -m venv --without-pip /venv \
    && python -m pip --disable-pip-version-check --python /venv/bin/python install --quiet --no-cache-dir --no-compile \
        --require-hashes --no-deps --only-binary :all: -r /requirements.txt \
    && /venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib

FROM ${BASE_IMAGE} AS dependencies
ARG DEVICE=cpu
COPY requirements/${DEVICE}.txt /requirements.txt
# TensorFlow's C++ headers are not needed to run anything.
RUN python -m venv --without-pip /venv \
    && python -m pip --disable-pip-version-check --python /venv/bin/python install --quiet --no-cache-dir --no-compile \
        --require-hashes --no-deps --only-binary :all: -r /requirements.txt \
    && rm -rf /venv/lib/python3.*/site-packages/tensorflow/include \
    && /venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib

FROM serve-dependencies AS package
COPY pyproject.toml README.md LICENSE /source/
COPY cnn_trainer /source/cnn_trainer
COPY configs /source/configs
RUN python -m pip --disable-pip-version-check --python /venv/bin/python install --quiet --no-cache-dir --no-compile \
        --no-deps --no-build-isolation --target /package /source \
    && /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /package

FROM ${BASE_IMAGE} AS serve
LABEL org.opencontainers.image.title="cnn-trainer-serve" \
    org.opencontainers.image.description="Serves a model that cnn-trainer exported, over HTTP, with a page to draw on." \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=serve-dependencies /venv /venv
COPY --from=package /package /app/package
ENV PATH=/app/package/bin:/venv/bin:$PATH \
    PYTHONPATH=/app/package \
    PYTHONDONTWRITEBYTECODE=1
# 65534 is nobody: the server writes nothing, and only needs to read the model.
USER 65534:65534
EXPOSE 8501
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/v2/health/ready', timeout=2)"]
ENTRYPOINT ["cnn-train", "serve", "--host", "0.0.0.0"]
CMD ["/model"]

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="cnn-trainer" \
    org.opencontainers.image.description="Trains a small convolutional network on MNIST, or on your own small images, from one YAML file." \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=dependencies /venv /venv
COPY --from=package /package /app/package
COPY configs /app/configs
# HOME: a user id that the image does not know has no home folder, but some libraries insist on one.
ENV PATH=/app/package/bin:/venv/bin:$PATH \
    PYTHONPATH=/app/package \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    CNN_TRAIN_RUNS_DIR=/runs \
    CNN_TRAIN_SEARCHES_DIR=/searches
WORKDIR /app
# No USER: docker creates a missing ./runs as root, and a fixed user id could not write there, nor into the folder of a user
# with another id. `docker run --user "$(id -u):$(id -g)"` runs it as you, in a folder of yours.
ENTRYPOINT ["cnn-train"]
