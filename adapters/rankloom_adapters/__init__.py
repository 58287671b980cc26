"""Expert files, bundles, the router, revisions and their rollout."""
