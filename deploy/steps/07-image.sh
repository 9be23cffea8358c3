# shellcheck shell=bash
know_image build
