#!/usr/bin/env bash
# DeepLesion, prepared by: python -m util.prepare deeplesion DOWNLOAD data/deeplesion
NAME=deeplesion CLASSES=8
source "$(dirname "$0")/paper.sh"
