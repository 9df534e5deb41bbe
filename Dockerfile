# docker build --tag lam_nb .       (README, "In a container", has Apptainer and how to run it)
# PyPI's torch brings CUDA: the machine needs NVIDIA's driver and its container toolkit, nothing else. Data and outputs are mounted.
FROM python:3.12-slim

# torch.compile calls a C compiler. Debian keeps no old versions that could be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*

ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH
WORKDIR /lam_nb
COPY requirements.lock ./
RUN python -m venv /opt/venv \
 && python -m pip install --quiet --no-cache-dir uv==0.13.9 \
 && uv pip install --quiet --no-cache --compile-bytecode --require-hashes -r requirements.lock

COPY LICENSE README.md pyproject.toml settings.ini ./
COPY lam_nb lam_nb
COPY nbs nbs
RUN uv pip install --quiet --no-cache --no-deps --no-build-isolation --editable . \
 && python -m lam_nb.kernel \
 && mkdir data outputs && chmod 1777 data outputs

# Anybody may run it (--user): with a home that all can write to, and no rights but their own.
ENV HOME=/tmp JUPYTER_PREFER_ENV_PATH=1 PYTHONNOUSERSITE=1
USER 1000:1000
ENTRYPOINT ["lam_nb"]
CMD ["--help"]
