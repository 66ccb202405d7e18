# The web page and the API in a container, as a user without rights: see docs/web.md.
#
#   FERKIT_TOKEN=… docker compose --file compose.web.yaml up --build --detach
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY requirements-predict.txt ./
RUN pip install --no-cache-dir --no-deps --requirement requirements-predict.txt
COPY serve.py parameters.py ./
COPY ferkit/ ferkit/
COPY pretrained/ pretrained/

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --system ferkit
USER ferkit
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/api/health', timeout=4)"]
ENTRYPOINT ["python", "serve.py", "--host=0.0.0.0"]
