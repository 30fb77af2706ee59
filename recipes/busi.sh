#!/usr/bin/env bash
# BUSI, prepared by: python -m util.prepare busi DOWNLOAD data/busi
NAME=busi CLASSES=3
source "$(dirname "$0")/paper.sh"
