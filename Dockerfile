# One image, several entries: `python -m batch` (worker), `python -m controller` and `python -m intake` (services).
# jobs.yaml and the service definitions name the entry; the image itself starts a worker.
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
WORKDIR /build
RUN python3 -m venv /opt/fanout
COPY requirements/image.txt requirements/
RUN /opt/fanout/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/image.txt
# The packages are copied as they are: what runs in the cloud is what stands in the repository.
COPY batch/ /opt/fanout/app/batch/
COPY controller/ /opt/fanout/app/controller/
COPY intake/ /opt/fanout/app/intake/
RUN /opt/fanout/bin/python -m compileall -q /opt/fanout/app

FROM ${BASE}
ENV PATH=/opt/fanout/bin:$PATH PYTHONPATH=/opt/fanout/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/fanout /opt/fanout
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin fanout
USER 10001
WORKDIR /tmp
CMD ["python", "-m", "batch"]
