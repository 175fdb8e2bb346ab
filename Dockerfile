# Images of the service and of a device:
#   docker build --target aggregator --tag flasc-aggregator .     devices' side, driver, migrations
#   docker build --target admin --tag flasc-admin .               operators' side
#   docker build --target device --tag flasc-device .             SDK with torch and PEFT; large
#
#   base ─▶ build ─▶ wheel                    this project, built once
#             └────▶ {server,admin,device}-libraries
#   base ─▶ runtime ─▶ aggregator │ admin │ device      libraries and project, as two layers
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Runtimes bring the same interpreter, so the environment needs no pip of its own.
RUN python -m venv --without-pip /opt/libraries
COPY pyproject.toml constraints.txt deploy/requirements.py ./

FROM build AS server-libraries
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py server > requirements.txt \
 && pip --python /opt/libraries/bin/python install \
    --constraint constraints.txt --requirement requirements.txt

FROM server-libraries AS admin-libraries
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py admin > requirements.txt \
 && pip --python /opt/libraries/bin/python install \
    --constraint constraints.txt --requirement requirements.txt

FROM build AS device-libraries
# Where torch for CPUs comes from: an index given here, or a wheel put into deploy/wheels. From the
# default index torch for Linux brings gigabytes of CUDA libraries. Bytecode is left out: it would
# make a large image larger, and a device starts once and runs for long.
ARG PIP_EXTRA_INDEX_URL=
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=deploy/wheels,target=/wheels \
    python requirements.py train > requirements.txt \
 && pip --python /opt/libraries/bin/python install --no-compile --find-links /wheels \
    --constraint constraints.txt --requirement requirements.txt

FROM build AS wheel
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /wheel . \
 && pip --python /opt/libraries/bin/python install --no-deps --target /opt/flasc /wheel/*.whl

FROM ${PYTHON_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.vendor="flasc-service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 flasc \
 && useradd --uid 10001 --gid flasc --home-dir /var/lib/flasc --shell /usr/sbin/nologin flasc \
 && install --directory --owner=flasc --group=flasc --mode=0750 /var/lib/flasc
# The root may be read-only: nothing is written but data, which goes to /var/lib/flasc alone.
ENV PATH=/opt/flasc/bin:/opt/libraries/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/flasc \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/flasc
WORKDIR /var/lib/flasc
USER 10001:10001

FROM runtime AS service
ENV FLASC_DATABASE_URL=sqlite:////var/lib/flasc/flasc.db \
    FLASC_BLOBS=/var/lib/flasc/blobs \
    FLASC_GRPC_HOST=0.0.0.0 \
    FLASC_HTTP_HOST=0.0.0.0
COPY deploy/healthcheck.py /opt/healthcheck.py
ENTRYPOINT ["flasc"]

FROM service AS aggregator
LABEL org.opencontainers.image.title="flasc-aggregator" \
      org.opencontainers.image.description="Answers devices, drives rounds, migrates the database"
COPY --from=server-libraries /opt/libraries /opt/libraries
COPY --from=wheel /opt/flasc /opt/flasc
EXPOSE 8470
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/opt/healthcheck.py", "grpc"]
CMD ["serve", "--role", "aggregator"]

FROM service AS admin
LABEL org.opencontainers.image.title="flasc-admin" \
      org.opencontainers.image.description="The operator's REST API and its web page"
COPY --from=admin-libraries /opt/libraries /opt/libraries
COPY --from=wheel /opt/flasc /opt/flasc
EXPOSE 8471
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/opt/healthcheck.py", "http"]
CMD ["serve", "--role", "admin"]

FROM runtime AS device
LABEL org.opencontainers.image.title="flasc-device" \
      org.opencontainers.image.description="The device SDK with torch and PEFT, to build devices on"
COPY --from=device-libraries /opt/libraries /opt/libraries
COPY --from=wheel /opt/flasc /opt/flasc
# A device is somebody's own script: mount or add it, and name it as the command.
ENTRYPOINT ["python"]
CMD ["-c", "import client_sdk.peft_trainer, importlib.metadata as m; print(m.version('flasc-service'))"]
