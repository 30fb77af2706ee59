#!/usr/bin/env bash
# Brain Tumor MRI, prepared by: python -m util.prepare btmd DOWNLOAD data/btmd
NAME=btmd CLASSES=4
source "$(dirname "$0")/paper.sh"
