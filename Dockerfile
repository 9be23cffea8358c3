# One image, several entries: `python -m batch` (worker), `python -m controller` and `python -m intake` (services).
# jobs.yaml and the service definitions name the entry; the image itself starts a worker.
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
WORKDIR /build
# The base's own pip installs into it: an image that runs has no use for a second one.
RUN python3 -m venv --without-pip /opt/fanout
# Tables: with DATA= (empty) the image is 70 MB smaller, and a task with a table is dead with the reason. `image` and `data` are the same
# versions; a worker loads the engine in a child, when the first table comes.
ARG DATA=data
COPY requirements/image.txt requirements/data.txt requirements/
RUN pip --python /opt/fanout/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/${DATA:-image}.txt
# The packages are copied as they are: what runs in the cloud is what stands in the repository.
COPY batch/ /opt/fanout/app/batch/
COPY controller/ /opt/fanout/app/controller/
COPY intake/ /opt/fanout/app/intake/
# Checked against no time stamps: an image does not change, and tools that set them back would make every start compile anew.
RUN /opt/fanout/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/fanout/app

FROM ${BASE}
ENV PATH=/opt/fanout/bin:$PATH PYTHONPATH=/opt/fanout/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/fanout /opt/fanout
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin fanout
USER 10001
WORKDIR /tmp
CMD ["python", "-m", "batch"]
