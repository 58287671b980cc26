"""A bundle in memory: the only reader of a bundle's part names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, BundleError, expert_part
from rankloom_adapters.bundled_expert import BundledExpert
from rankloom_adapters.calibration import Calibration
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.router import Router
from rankloom_engine.grounding import Grounder
from rankloom_engine.parts import EngineParts
from rankloom_engine.phrased import Phraser
from rankloom_engine.prompt import PromptAssembler, PromptFormat, load_tokenizer
from rankloom_features.bundled_tables import TablesError, UnreadableTablesError
from rankloom_features.catalogue import Catalogue
from rankloom_features.event_store.memory import NO_EVENTS
from rankloom_features.event_store.store import EventStore
from rankloom_features.events import known_history
from rankloom_features.histories import Histories
from rankloom_features.item_index import ItemIndex
from rankloom_features.loading import provider_from_bytes, statistics_from_bytes
from rankloom_features.model_info import FeatureVersionError, ModelInfo, model_info_of
from rankloom_features.provider import FeatureProvider, UserFeatures, UserQuery
from rankloom_features.ranker import TreeRanker
from rankloom_features.rated_reviews import RatedReviews
from rankloom_features.review_ratings import ReviewRatings, ReviewRatingsError
from rankloom_features.review_vectors import ReviewSource, ReviewVectors
from rankloom_features.vector_space import CollaborativeSpace
from rankloom_ranker.features import FeatureSpace, space_of
from rankloom_ranker.item_groups import ItemGroups
from rankloom_ranker.retrieving import Retriever
from rankloom_ranker.stored_rationales import StoredRationales

_FEATURE_PARTS = (
    parts.CATALOGUE,
    parts.ENCODER,
    parts.ITEM_VECTORS,
    parts.ITEM_STATISTICS,
    parts.USER_MODEL,
    parts.ITEM_COLUMNS,
    parts.ATTRIBUTE_COLUMNS,
    parts.TOWERS,
    parts.REVIEW_VECTORS,
    parts.RATING_TOWERS,
    parts.RATED_REVIEWS,
)
_RETRIEVAL_PARTS = (*_FEATURE_PARTS, parts.ITEM_INDEX)
_PROMPT_PARTS = (parts.CATALOGUE, parts.BASE_TOKENIZER, parts.PROMPT, parts.ITEM_VECTORS)
_DECODER_PARTS = (
    parts.BASE_CONFIG,
    parts.BASE_WEIGHTS,
    parts.BASE_TOKENIZER,
    parts.PROJECTOR,
    parts.PROMPT,  # it names the verdict tokens
)


@dataclass(frozen=True, slots=True, eq=False)
class BundleFeatures:
    """A bundle's own features. ``popularity``: (items,) training rows of each item."""

    provider: FeatureProvider
    popularity: NDArray[np.float32]
    info: ModelInfo

    def features_of_many(
        self, queries: Sequence[UserQuery], feature_version: str | None = None
    ) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries. Raises FeatureVersionError."""
        if feature_version not in (None, self.info.feature_version):
            raise FeatureVersionError
        return self.provider.features_of_many(queries)

    def model_info(self) -> ModelInfo:
        """The bundle's feature model."""
        return self.info

    def forget(self, user_id: str) -> None:
        """Drops what is cached of the user."""
        self.provider.forget(user_id)


@dataclass(frozen=True, eq=False)
class LoadedBundle:
    """All of a bundle but the language model. Immutable; safe from several threads.

    ``phraser``: None where the decoder finds its own words.
    ``expert_digests``: SHA-256 of the weight files, in the order of ``router.experts``.
    ``item_groups``: None where groups are clusters of users. ``rationales``: None without stored
    explanations.
    """

    bundle: Bundle
    features: BundleFeatures
    trees: TreeRanker
    router: Router
    expert_digests: tuple[str, ...]
    calibration: Calibration
    prompts: PromptAssembler
    grounder: Grounder
    phraser: Phraser | None
    retriever: Retriever
    item_groups: ItemGroups | None = None
    rationales: StoredRationales | None = None

    @property
    def digest(self) -> str:
        return self.bundle.digest

    @property
    def provider(self) -> FeatureProvider:
        return self.features.provider

    @property
    def catalogue(self) -> Catalogue:
        return self.features.provider.catalogue

    @cached_property
    def space(self) -> FeatureSpace:
        """What features must look like to be used with this bundle."""
        return space_of(self.provider)

    def routing_vector(self, features: UserFeatures) -> NDArray[np.floating]:
        """What the router compares with its centroids: the user's vector or shares of groups."""
        if self.item_groups is None:
            return features.vector
        _, history = known_history(features.events, self.catalogue)
        shares: NDArray[np.floating] = self.item_groups.shares(Histories.of([history]))[0]
        return shares

    def engine_parts(self) -> EngineParts:
        """What the engine loads the language model and its experts from."""
        bundle = self.bundle
        return EngineParts(
            config=bundle.part(parts.BASE_CONFIG),
            weights=bundle.part(parts.BASE_WEIGHTS),
            projector=bundle.part(parts.PROJECTOR),
            latent_dim=self.space.dim,
            num_columns=self.space.num_columns,
            format=self.prompts.format,
            stops=self.prompts.stops,
            experts=bundled_experts(bundle, self.router.experts),
            decoder_key=" ".join(bundle.part(name).sha256 for name in _DECODER_PARTS),
        )


def load_bundle(
    bundle: Bundle, like: Iterable[LoadedBundle] = (), events: EventStore = NO_EVENTS
) -> LoadedBundle:
    """Loads and checks all but the language model; blocks while it reads.

    ``like``: loaded bundles with these ``events``; what the new one has in common with them is
    shared. ``events``: where the histories of user ids are. Raises ValueErrors that name the
    part: BundleError, RouterError, CalibrationError, ModelError, RankerError, ItemGroupsError,
    ItemIndexError or those of load_features.
    """
    like = tuple(like)
    router = Router.from_bytes(bundle.read(parts.ROUTER))
    calibration = Calibration.from_bytes(bundle.read(parts.CALIBRATION))
    features = _like(like, bundle, _FEATURE_PARTS)
    trees, prompts = _like(like, bundle, (parts.TREES,)), _like(like, bundle, _PROMPT_PARTS)
    retrieval = _like(like, bundle, _RETRIEVAL_PARTS)
    own = features.features if features else load_features(bundle, events)
    assembler = prompts.prompts if prompts else _prompts(bundle, own.provider.scorer.vectors)
    items = own.provider.catalogue.items
    loaded = LoadedBundle(
        bundle=bundle,
        features=own,
        trees=trees.trees if trees else TreeRanker(bundle.read(parts.TREES)),
        router=router,
        expert_digests=tuple(
            each.weights.sha256 for each in bundled_experts(bundle, router.experts)
        ),
        calibration=calibration,
        prompts=assembler,
        grounder=prompts.grounder if prompts else Grounder(assembler.tokenizer, items),
        phraser=prompts.phraser if prompts else _phraser(assembler),
        retriever=retrieval.retriever if retrieval else _retriever(bundle, own),
        item_groups=_item_groups(bundle, len(items), len(router.groups)),
        rationales=_rationales(bundle),
    )
    _check_fit(loaded)
    return loaded


def _phraser(prompts: PromptAssembler) -> Phraser | None:
    return Phraser(prompts.tokenizer) if prompts.format.is_phrased else None


def _retriever(bundle: Bundle, features: BundleFeatures) -> Retriever:
    """A bundle without an index is searched exactly: its vectors are all that needs."""
    catalogue, scorer = features.provider.catalogue, features.provider.scorer
    sampled = bool(bundle.metadata.get("implicit"))
    space = CollaborativeSpace(scorer, features.popularity, sampled=sampled)
    if parts.ITEM_INDEX in bundle.parts:
        data = bundle.read(parts.ITEM_INDEX)
        index = ItemIndex.from_bytes(data, space, catalogue.item_ids)
    else:
        index = ItemIndex(space.items)
    retriever = Retriever(catalogue, space, index, features.popularity)
    retriever.warm()
    return retriever


def load_features(bundle: Bundle, events: EventStore = NO_EVENTS) -> BundleFeatures:
    """Loads what features need, and nothing else.

    Raises BundleError, CatalogueError, EncoderError, StatisticsError, UserModelError or
    ItemColumnsError, all ValueErrors.
    """
    if parts.FORMER_EVENTS in bundle.parts:
        remedy = "train it again, or convert it with: rankloom bundle convert OLD NEW"
        raise BundleError(parts.FORMER_EVENTS, f"events are no part of a bundle; {remedy}")
    statistics = bundle.read(parts.ITEM_STATISTICS)

    def given(part: str) -> bytes | None:
        return bundle.read(part) if part in bundle.parts else None

    provider = provider_from_bytes(
        catalogue=bundle.read(parts.CATALOGUE),
        encoder=bundle.read(parts.ENCODER),
        item_vectors=bundle.read(parts.ITEM_VECTORS),
        item_statistics=statistics,
        events=events,
        user_model=given(parts.USER_MODEL),
        item_columns=given(parts.ITEM_COLUMNS),
        attribute_columns=given(parts.ATTRIBUTE_COLUMNS),
        ratings=_ratings(bundle),
        rater=_rater(bundle),
    )
    if not len(provider.catalogue):
        raise BundleError(parts.CATALOGUE, "holds no item")
    popularity = statistics_from_bytes(statistics, len(provider.catalogue)).rows
    return BundleFeatures(provider, popularity, model_info_of(provider, bundle.metadata))


def bundled_experts(bundle: Bundle, names: Sequence[str]) -> tuple[BundledExpert, ...]:
    """Experts of a bundle, not read yet. Raises BundleError where the manifest lacks one."""
    base = bundle.part(parts.BASE_WEIGHTS).sha256
    return tuple(
        BundledExpert(
            name,
            bundle.part(expert_part(name, CONFIG_FILE)),
            bundle.part(expert_part(name, WEIGHTS_FILE)),
            base,
        )
        for name in names
    )


def base_digest(bundle: Bundle) -> str:
    """SHA-256 of the base weights that the bundle's experts adapt. Raises BundleError."""
    return bundle.part(parts.BASE_WEIGHTS).sha256


def _like(
    loaded: Sequence[LoadedBundle], bundle: Bundle, names: Sequence[str]
) -> LoadedBundle | None:
    """A loaded bundle with the same files under these names."""
    wanted = [bundle.parts.get(name) for name in names]
    same = (each for each in loaded if [each.bundle.parts.get(name) for name in names] == wanted)
    return next(same, None)


def _prompts(bundle: Bundle, item_vectors: NDArray[np.float32]) -> PromptAssembler:
    tokenizer = load_tokenizer(bundle.read(parts.BASE_TOKENIZER))
    return PromptAssembler(
        tokenizer, PromptFormat.from_bytes(bundle.read(parts.PROMPT)), item_vectors
    )


def _item_groups(bundle: Bundle, num_items: int, num_groups: int) -> ItemGroups | None:
    if parts.ITEM_GROUPS not in bundle.parts:
        return None
    return ItemGroups.from_bytes(bundle.read(parts.ITEM_GROUPS), num_items, num_groups)


def _rationales(bundle: Bundle) -> StoredRationales | None:
    """They are read where they lie, so the whole file is compared with the manifest first."""
    if parts.RATIONALES not in bundle.parts:
        return None
    bundle.check_part(parts.RATIONALES)
    try:
        digest = bundle.parts[parts.RATIONALES].sha256
        return StoredRationales(bundle.folder / parts.RATIONALES, digest)
    except TablesError as error:
        raise BundleError(parts.RATIONALES, str(error)) from error


def _ratings(bundle: Bundle) -> ReviewRatings | None:
    """Of attached towers; None without them. Raises BundleError."""
    found = _towers(bundle, parts.TOWERS, parts.REVIEW_VECTORS, ReviewVectors)
    if found:
        encoder = found.origin.encoder
        _check_made_with(bundle, parts.REVIEW_VECTORS, parts.TEXT_ENCODER, encoder)
    return found


def _rater(bundle: Bundle) -> ReviewRatings | None:
    """Of the towers that a column is made with; None without them. Raises BundleError."""
    return _towers(bundle, parts.RATING_TOWERS, parts.RATED_REVIEWS, RatedReviews)


def _towers(
    bundle: Bundle, towers: str, reviews: str, kind: Callable[[Path], ReviewSource]
) -> ReviewRatings | None:
    """None without them. Raises BundleError where the parts are not of each other."""
    if towers not in bundle.parts:
        return None
    bundle.check_part(reviews)
    try:
        found = kind(bundle.folder / reviews)
        _check_made_with(bundle, reviews, towers, found.origin.towers)
        return ReviewRatings(bundle.read(towers), found)
    except (TablesError, UnreadableTablesError) as error:
        raise BundleError(reviews, str(error)) from error
    except ReviewRatingsError as error:
        raise BundleError(towers, str(error)) from error


def _check_made_with(bundle: Bundle, reviews: str, name: str, digest: str) -> None:
    """Raises BundleError where vectors of reviews were not made with that part of the bundle."""
    if bundle.part(name).sha256 != digest:
        advice = "take both from one training, or from one `rankloom reccot attach`"
        raise BundleError(reviews, f"not of the bundle's {name}; {advice}")


def _check_fit(loaded: LoadedBundle) -> None:
    """Raises BundleError where one part was made for another than those beside it."""
    groups, dim = loaded.item_groups, loaded.provider.encoder.dim
    if loaded.router.dim != (groups.num_groups if groups else dim):
        space = "items' groups" if groups else "feature model's latent space"
        raise BundleError(parts.ROUTER, f"not of the {space}")
    if loaded.trees.num_columns != loaded.provider.num_columns:
        raise BundleError(parts.TREES, "not of the features' columns")
