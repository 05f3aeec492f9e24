"""The change test and the verdicts on near-duplicates; pure, moves nothing."""
