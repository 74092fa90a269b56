# The API and its jobs; compose.yaml says with what. The same image runs both.
FROM python:3.11-slim-bookworm
WORKDIR /srv/iparking
# The letters of Vietnamese, for receipts as PDF.
RUN apt-get update && apt-get install -y --no-install-recommends fonts-dejavu-core && rm -rf /var/lib/apt/lists/*
COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN useradd --system iparking && install -d -o iparking -m 700 /srv/keys
USER iparking
ENV PYTHONUNBUFFERED=1
EXPOSE 8000
CMD ["python", "-m", "granian", "--interface", "wsgi", "--host", "0.0.0.0", "--port", "8000", "--workers", "2", \
     "--blocking-threads", "16", "--no-ws", "--backlog", "1024", "--backpressure", "1024", "wsgi:application"]
