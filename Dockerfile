# One image, several entries: `python -m batch` (worker), `python -m controller` and `python -m intake` (services).
# jobs.yaml and the service definitions name the entry; the image itself starts a worker.
#
# The base is pinned with --build-arg BASE_DIGEST=sha256:…: a tag is whatever stands there on the day of the build.
ARG BASE=docker.io/library/python:3.11-slim
ARG BASE_DIGEST=

FROM ${BASE}${BASE_DIGEST:+@${BASE_DIGEST}} AS build
WORKDIR /build
# The base's own pip installs into it: an image that runs has no use for a second one.
RUN python3 -m venv --without-pip /opt/fanout
# Tables: with DATA= (empty) the image is 70 MB smaller, and a task with a table is dead with the reason; a worker loads the engine in a
# child, when the first table comes. With TELEMETRY=1 the image can export traces and metrics. The files agree on every version.
ARG DATA=1
ARG TELEMETRY=
COPY requirements/image.txt requirements/data.txt requirements/telemetry.txt requirements/
RUN pip --python /opt/fanout/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes \
    -r requirements/image.txt ${DATA:+-r requirements/data.txt} ${TELEMETRY:+-r requirements/telemetry.txt}
# The packages are copied as they are: what runs in the cloud is what stands in the repository.
COPY batch/ /opt/fanout/app/batch/
COPY controller/ /opt/fanout/app/controller/
COPY intake/ /opt/fanout/app/intake/
# Checked against no time stamps: an image does not change, and tools that set them back would make every start compile anew.
RUN /opt/fanout/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/fanout/app

# What runs has no installer, no compiler and nothing that runs as its owner (setuid). Copied into an empty image, so that no layer below
# still has them; the packages are a layer of their own, which is all that a new version brings.
FROM ${BASE}${BASE_DIGEST:+@${BASE_DIGEST}} AS run
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin fanout \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && find / -xdev -path '*-packages/*' \( -name 'pip' -o -name 'pip-*' -o -name 'setuptools*' -o -name 'pkg_resources' -o -name 'wheel*' \
      -o -name '_distutils_hack' -o -name 'distutils-precedence.pth' \) -prune -exec rm -rf {} + \
 && find / -xdev -type d -name ensurepip -prune -exec rm -rf {} + \
 && find /usr/bin /usr/local/bin \( -name 'pip*' -o -name 'wheel*' \) -delete \
 && rm -rf /usr/share/python-wheels /usr/share/doc /usr/share/man /usr/share/locale /var/cache/* /var/lib/apt/lists/* /var/log/* /root/.cache /tmp/*

FROM scratch
COPY --from=run / /
COPY --from=build /opt/fanout /opt/fanout
ENV PATH=/opt/fanout/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONPATH=/opt/fanout/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /tmp
CMD ["python", "-m", "batch"]
ARG BASE
ARG BASE_DIGEST
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title=fanout org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION} org.opencontainers.image.revision=${REVISION} org.opencontainers.image.source=${SOURCE} \
      org.opencontainers.image.base.name=${BASE} org.opencontainers.image.base.digest=${BASE_DIGEST}
