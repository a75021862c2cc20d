# All four programs in one image; the chart (helm/clustermesh) says which runs where.
#   docker build -t REGISTRY/clustermesh:0.1.0 . && docker push REGISTRY/clustermesh:0.1.0
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends libbpf1 \
    && rm -rf /var/lib/apt/lists/*
COPY . /tmp/clustermesh
RUN pip install --no-cache-dir --constraint /tmp/clustermesh/constraints.txt /tmp/clustermesh \
    && rm -rf /tmp/clustermesh
CMD ["meshctl", "--help"]
