# The server as an image, and the whole box as another:
#
#   docker build --tag wirthforge .                                 # for Postgres, Redis and engines elsewhere (helm/)
#   docker build --tag wirthforge:embedded --target embedded .      # `wirthforge up`: with all of them inside
#
# The same commit gives the same files: add the digests of the bases that you have checked, and the commit's time:
#
#   docker build --build-arg PYTHON_DIGEST=@sha256:… --build-arg NODE_DIGEST=@sha256:… \
#     --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" .
ARG PYTHON_TAG=3.12-slim-bookworm
ARG PYTHON_DIGEST=
ARG NODE_TAG=24-bookworm-slim
ARG NODE_DIGEST=

# The web client, from its lock file.
FROM docker.io/library/node:${NODE_TAG}${NODE_DIGEST} AS client
WORKDIR /source/client
COPY client/package.json client/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY client ./
RUN npm run --silent build

# The environment, from wheels with hashes; this stage has no compiler either.
FROM docker.io/library/python:${PYTHON_TAG}${PYTHON_DIGEST} AS install
ARG SOURCE_DATE_EPOCH=1767225600
WORKDIR /source
COPY requirements requirements
COPY tools/install-server tools/install-server
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY quotas quotas
COPY migrations migrations
COPY benchmarks benchmarks
COPY --from=client /source/server/web/static server/web/static
RUN tools/install-server /opt/wirthforge server

FROM install AS install-embedded
RUN rm -r /opt/wirthforge && tools/install-server /opt/wirthforge embedded

# What both have in common. Postgres' programs ask for the name of their user, so there is an entry for it.
FROM docker.io/library/python:${PYTHON_TAG}${PYTHON_DIGEST} AS base
RUN groupadd --gid 10001 wirthforge \
    && useradd --uid 10001 --gid 10001 --no-log-init --create-home --home-dir /data --shell /usr/sbin/nologin wirthforge
ENV PATH=/opt/wirthforge/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    WIRTHFORGE_DATA_DIR=/data \
    WIRTHFORGE_HOST=0.0.0.0
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["wirthforge"]

FROM base AS embedded
# llama.cpp computes with OpenMP, the only library that neither the wheels nor the base bring.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends 'libgomp1=12.*' \
    && rm -rf /var/lib/apt/lists/*
COPY --from=install-embedded /opt/wirthforge /opt/wirthforge
USER 10001:10001
CMD ["up"]

# The last stage is what `docker build` makes.
FROM base AS server
COPY --from=install /opt/wirthforge /opt/wirthforge
USER 10001:10001
CMD ["serve"]
