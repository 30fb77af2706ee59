# The scripts with the versions that the tests have run with. This file was never built: README "Where things are".
#
#     docker build -t msmae .
#     docker run --rm --gpus all --shm-size 8g --user "$(id -u):$(id -g)" -v "$PWD/DATA:/data:ro" -v "$PWD/OUT:/out" msmae \
#         main_pretrain.py --data_path /data --output_dir /out/pretrain
#
# Docker needs whole paths, and OUT must be there. For DICOM and NIfTI add requirements-formats.txt below.
FROM python:3.11-slim

WORKDIR /msmae
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt
COPY . .

# not as root: what it writes belongs to this user
RUN useradd --create-home msmae
USER msmae
ENTRYPOINT ["python"]
CMD ["main_pretrain.py", "--help"]
