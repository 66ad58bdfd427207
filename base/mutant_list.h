// The mutants: name, number, row of the Go original's defects (docs/testing.md; 0: a defect of our own choosing), the
// tests that look there (doctest names begin so), and what is wrong. Numbers are for good: documents name them.
// One call of Mutant(kMutant<name>) in the product puts each in (base/mutant.h). A test compares this list with the
// tree.
#pragma once

// clang-format off
#define DAGSTORE_MUTANTS(X) \
  X(AckBeforeCommit, 1, 25, "engine:", "answers leave before the commit they rest on") \
  X(JobBeforeCommit, 2, 14, "engine:", "jobs start before the commit they rest on") \
  X(CommitErrorIgnored, 3, 26, "engine:", "a failed commit is taken for a good one") \
  X(StaleCompletionTaken, 4, 16, "engine:", "a completion of an older generation is taken for the newest") \
  X(DestroyIgnoresJobs, 5, 14, "engine:", "a destruction does not wait for the jobs of its shard") \
  X(FirstDeadlineIsJobs, 6, 19, "engine:", "the deadline of the first waiter is the deadline of the job") \
  X(StopEndsJobOfOthers, 7, 19, "engine:", "the stop of one waiter ends the job the others wait for") \
  X(StopLeavesJob, 8, 23, "engine:", "the stop of the last waiter does not end the job") \
  X(ErroredNotStored, 9, 0, "engine:", "that a shard is Errored is not stored") \
  X(DestroyingNotStored, 10, 14, "engine:", "that a destruction has begun is not stored") \
  X(RecordOutlivesShard, 11, 14, "engine:", "the record of a destroyed shard stays") \
  X(DestroyMarkStays, 12, 17, "engine:", "the mark of a destruction outlives it, and the next shard of that key inherits it") \
  X(NotHidden, 13, 0, "engine:", "lookups lead to shards that are being destroyed") \
  X(OrdinalsNotReserved, 14, 17, "engine:", "index ordinals are given out that a crash gives out again") \
  X(OldIndexKept, 15, 0, "engine:", "the index that a recovery replaced stays") \
  X(DeadIndexKept, 16, 0, "engine:", "what a failed index job has made stays") \
  X(RefusedUnanswered, 17, 0, "engine:", "a request that the table refuses is not answered") \
  X(DeadlinesIgnored, 18, 0, "engine:", "a request that waits past its deadline goes on waiting") \
  X(CloseDropsQueue, 19, 33, "store:", "closing drops the requests that wait") \
  X(CloseLeavesJobs, 20, 34, "engine:", "closing does not wait for jobs") \
  X(GraceHasNoEnd, 21, 34, "engine:", "closing past its grace does not stop jobs") \
  X(RefsNotCounted, 22, 12, "engine:", "an accessor that is handed out is not counted") \
  X(StoppedUnanswered, 23, 0, "engine:", "whoever stopped a job that served others is never answered") \
  X(FirstFailedUnanswered, 24, 1, "engine:", "of those who wait for a job that fails the first is not answered") \
  X(JobsUnlimited, 25, 43, "engine:", "any number of jobs runs at a time") \
  X(RecoversForEver, 26, 0, "engine:", "acquiring starts a recovery however often it failed") \
  X(LimitChangesState, 27, 0, "engine:", "a full disk or a lack of descriptors makes a shard Errored") \
  X(CancelIsFailure, 28, 19, "engine:", "a stop makes a shard Errored") \
  X(OldDamageTaken, 29, 16, "engine:", "damage of an index that was replaced is blamed on the new one") \
  X(InlineReadersLost, 30, 12, "engine:", "readers who came without the loop are not counted when it takes over") \
  X(DestroyCancelsNothing, 31, 14, "engine:", "a job that runs while its shard is destroyed is not cut off") \
  X(CopyNotStored, 32, 0, "engine:", "a copy that was made while a shard was opened is not stored") \
  X(EagerForgotten, 33, 25, "engine:", "an eager registration that a restart interrupted is not taken up") \
  X(StaleRelease, 34, 18, "engine:", "a release of a shard that is gone counts for the next one in its place") \
  X(StoppedAtOnce, 35, 0, "engine:", "whoever stops the last job is answered before it has ended") \
  X(CollectUnanswered, 36, 5, "engine:", "whoever asks for a collection is not answered") \
  X(TopDroppedEarly, 37, 0, "engine:", "the top-level index forgets a shard before its destruction is durable") \
  X(ErroredHeals, 40, 10, "engine:", "the last release of an Errored shard makes it Available") \
  X(ReleaseIgnored, 41, 11, "engine:", "a release while the shard recovers is ignored, and the reference stays for ever") \
  X(CollectInUse, 42, 12, "engine:", "the copy of a shard in use is collected") \
  X(AcquireWhileDestroying, 43, 15, "engine:", "an acquire of a shard that is being destroyed waits for ever") \
  X(SecondOpen, 44, 0, "engine:", "a second job opens a shard while one does") \
  X(ErrorSticks, 45, 20, "engine:", "an Errored shard cannot be recovered") \
  X(SecondRecovery, 46, 16, "engine:", "a second recovery starts while one runs") \
  X(RegisterOverErrored, 47, 0, "engine:", "a registration replaces an Errored shard") \
  X(DestroyInUse, 48, 12, "engine:", "a shard in use is destroyed") \
  X(FailureUntold, 49, 0, "engine:", "a failure is not in the failure log") \
  X(IndexDamageIsFinal, 50, 29, "engine:", "a damaged index makes its shard Errored instead of being built again") \
  X(DestroyTwiceUnanswered, 51, 0, "engine:", "a second destruction of the same shard is ignored") \
  X(RecoverForgetsRefs, 52, 11, "engine:", "a shard with readers is Available, not Serving, after its recovery") \
  X(RestartStuck, 53, 13, "engine:", "a restart finds an Errored shard in a state that waits for a job nobody runs") \
  X(DoubleRelease, 60, 18, "engine:", "closing an accessor that is closed releases its shard again") \
  X(ReleaseForgotten, 61, 39, "engine:", "an accessor that is dropped does not release its shard") \
  X(IndexKept, 70, 17, "store:", "destroying a shard leaves its index") \
  X(RootsKept, 71, 17, "store:", "destroying a shard leaves its roots") \
  X(CopyKept, 72, 17, "store:", "destroying a shard leaves its local copy") \
  X(ManifestsKept, 73, 17, "store:", "destroying a shard leaves its manifests") \
  X(NotInTopIndex, 74, 30, "store:", "a shard is Available and its blocks are not found by their CIDs") \
  X(OldRootsKept, 75, 17, "store:", "a recovery leaves the roots of what it replaced") \
  X(OldCopyTrusted, 76, 17, "store:", "a recovery takes the copy that was found damaged, or that is older than the source") \
  X(IndexerThrows, 77, 51, "store:", "an exception of an indexer ends the process") \
  X(IndexedUnverified, 78, 50, "store:", "blocks are not hashed while a shard is indexed") \
  X(SourceMayChange, 79, 17, "store:", "a source that changed is read by the index of what it was") \
  X(UselessCopyKept, 80, 0, "store:", "the copy of a source that cannot be indexed stays") \
  X(CollectedByRecordOnly, 81, 0, "store:", "a collection forgets a copy and leaves its file") \
  X(BadRecordDropped, 90, 27, "store:", "a record that cannot be decoded is dropped") \
  X(SweptInQuarantine, 91, 27, "store:", "the files of a shard in quarantine are swept") \
  X(NoCatchUp, 92, 30, "store:", "what the top-level index had in memory when the process died is not added again") \
  X(DestroyingForgotten, 93, 14, "crash:", "a restart does not go on with a destruction") \
  X(LookupsReadyEarly, 94, 30, "crash:", "lookups are said to be complete before they are") \
  X(AddressRedacted, 95, 36, "store:", "the address of a shard is stored in its printed form") \
  X(KeysCleaned, 96, 38, "store:", "keys are cleaned like paths") \
  X(OrphanCopiesKept, 97, 28, "crash:", "a collection leaves the copies that a killed process made") \
  X(UncommittedSweep, 98, 0, "store:", "what a sweep finds is not removed") \
  X(MarkerInPlace, 99, 35, "publish:", "a file is written under its final name") \
  X(IndexByName, 110, 29, "index store:", "an index is taken for the one of its record because it is there") \
  X(SweepTakesLiving, 111, 28, "index store:", "a sweep takes indexes that records own") \
  X(SweepTakesStrangers, 112, 28, "index store:", "a sweep takes files that are not ours") \
  X(SweepTakesNewest, 113, 28, "index store:", "a sweep takes the index that a job is writing") \
  X(IndexUnsynced, 114, 31, "index store:", "the data of an index are not synced before it gets its name") \
  X(IndexDirUnsynced, 115, 31, "index store:", "the name of an index is not synced") \
  X(IndexPageUnchecked, 116, 29, "native index:", "the pages of an index are not checked") \
  X(MismatchIndexed, 117, 50, "index build:", "a block that does not match its CID is indexed") \
  X(EmbeddedTrusted, 118, 49, "embedded index:", "the index that a CAR carries is not compared with its payload") \
  X(CoveredTooEarly, 119, 30, "top index:", "the top-level index says it has on disk what is in memory only") \
  X(MergeLosesEntries, 120, 0, "top index:", "a merge of runs loses entries") \
  X(FindHidesGaps, 121, 30, "top index:", "a lookup that is not complete says it is") \
  X(RunUnchecked, 122, 29, "top index:", "the chunks of a run are not checked") \
  X(RootsOfOthers, 123, 0, "roots:", "removing the roots of a shard removes nothing") \
  X(TrashNamesIndexes, 124, 0, "index store:", "a dropped index stays under its name") \
  X(ShortBodyTaken, 130, 32, "upgrader:", "a body that is shorter than its source is taken for a copy") \
  X(CopyUnsynced, 131, 31, "upgrader:", "the data of a copy are not synced before it gets its name") \
  X(CopyDirUnsynced, 132, 31, "upgrader:", "the name of a copy is not synced") \
  X(RenameIgnored, 133, 22, "upgrader:", "a rename that failed is taken for one that worked") \
  X(ChangeUnnoticed, 134, 32, "upgrader:", "a source that changes while it is copied is not noticed") \
  X(TempKept, 135, 0, "upgrader:", "a copy that failed leaves its temporary") \
  X(TempsOfLiving, 136, 28, "upgrader:", "a sweep takes the temporaries of this process") \
  X(UsersFileDeleted, 137, 46, "upgrader:", "a file that a user handed in is deleted with its shard") \
  X(CopyOfAnySize, 138, 32, "upgrader:", "a copy that is there is taken whatever its size") \
  X(StemIsKey, 139, 45, "shard key:", "the key of a shard is the name of its files") \
  X(CreateFollows, 150, 47, "posix io", "creating a file follows a link, takes one that is there, and lets all read it") \
  X(PublishUnsynced, 151, 31, "publish:", "a small file is not synced before it gets its name") \
  X(UrlSlashes, 152, 37, "url:", "a slash or a percent sign in a URL is written as it is") \
  X(SecretsPrinted, 153, 48, "url:", "the printed form of a URL holds its secrets") \
  X(RecordUnchecked, 154, 27, "record:", "a record with a wrong checksum is decoded") \
  X(NewerRecordRead, 155, 27, "record:", "a record of a newer version is decoded") \
  X(ZeroTraceTaken, 156, 0, "traceparent", "a traceparent of zeros is accepted") \
  X(CidTailTaken, 157, 0, "cid:", "a CID with bytes behind it is accepted") \
  X(UnsyncedCommit, 158, 26, "store:", "commits are not synced") \
  X(LogTailIgnored, 159, 26, "rocks kv", "the database opens without what a damaged log holds") \
  X(NoHashOnRead, 170, 50, "store:", "blocks are served without being hashed") \
  X(SectionUnchecked, 171, 50, "store:", "the CID of a section is not compared with the one asked for") \
  X(LiarStopsReading, 172, 50, "store:", "a shard that serves bad bytes hides the sound ones that have the block") \
  X(DuplicateStopsReading, 173, 50, "store:", "a bad duplicate of a block hides the sound one") \
  X(SectionUnlimited, 174, 0, "car reader:", "a section may have any size") \
  X(HeaderUnlimited, 175, 0, "car reader:", "a CAR header may have any size") \
  X(PaddingIsDamage, 176, 0, "car reader:", "the NULs behind a Filecoin piece are an error") \
  X(AnyFanout, 177, 0, "hamt:", "a HAMT may have any fanout") \
  X(WalkUnlimited, 178, 0, "traversal:", "a walk follows any number of links") \
  X(PathUnlimited, 179, 0, "path:", "a path may have any number of segments") \
  X(IdentityUnlimited, 180, 0, "cid:", "an identity CID may hold any number of bytes") \
  X(AdoptedSwept, 181, 0, "remote store:", "gc removes a copy of an earlier process that a job is going on with") \
  X(LeftoversKept, 182, 17, "remote store:", "what a fetch that broke off had kept outlives its shard") \
  X(LiesStick, 183, 0, "remote store:", "what a source lied about before it broke off is not fetched again") \
  X(AdoptedCopyKept, 184, 0, "remote store:", "a copy that an earlier process began stays when it is replaced") \
  X(RottenHeadsIndexed, 185, 0, "remote store:", "a lost index is built again from a copy whose section heads have rotten") \
  X(RottenExtentsRead, 186, 0, "remote store:", "what rots of a copy that broke off is indexed when it is gone on with") \
  X(SlowReaderKeepsAll, 190, 1, "event log:", "a subscriber who does not read keeps every event") \
  X(ChannelUnbounded, 191, 2, "channel:", "a channel takes more than it has places") \
  X(FailuresKept, 192, 3, "event log:", "failures are kept without limit") \
  X(RequestsUnbounded, 193, 43, "task queues", "any number of requests waits for the loop") \
  X(DoorStaysOpen, 194, 33, "task queues", "requests are accepted after the store was closed") \
  X(SlotsLeak, 195, 2, "channel:", "a request that is refused keeps its place in the channel") \
  X(BatchesUnlimited, 200, 0, "engine:", "what gathers behind a slow commit goes in one batch, however large") \
  X(StoppedAttemptCounts, 201, 0, "engine:", "a recovery that its caller stopped is the one that a restart allows") \
  X(GoneIsAbsent, 202, 0, "lookups:", "the blocks of a CAR that is gone are not found, as if nobody had them") \
  X(UnreadHidesOthers, 203, 0, "lookups:", "a shard whose index cannot be read fails the lookup that others could answer") \
  X(PagesGoByOrdinal, 204, 0, "lookups:", "a shard that is indexed again while a page is looked into is missing from it") \
  X(CatchUpGivesUp, 205, 30, "lookups:", "what cannot be added to the top-level index now is left out of it") \
  X(PublishedForgotten, 206, 0, "lookups:", "mending the top-level index drops a shard that is being published") \
  X(FsckDestroys, 207, 0, "fsck:", "fsck destroys what was registered again while it waited") \
  X(FetchHearsNobody, 208, 23, "lookups:", "fetching a shard does not end with its caller while it is being indexed") \
  X(ErroredCopyKept, 209, 0, "remote store:", "the copy of an errored shard makes no room for others") \
  X(ErroredJobsGoOn, 210, 14, "engine:", "who destroys an errored shard while its copy goes is not answered") \
  X(CollectUnawaited, 211, 0, "engine:", "a shard is indexed again while a copy of it that the new index may go on with is removed") \
  X(DamagedCopyKept, 212, 0, "remote store:", "a damaged copy that a recovery gave up and that failed stays until a restart")

// Rows whose defect cannot be put in, and why.
#define DAGSTORE_IMPOSSIBLE_MUTANTS(X) \
  X(4, "failures are kept in a bounded log that drops the oldest: there is no queue from which a handler could be called back") \
  X(6, "one thread owns all shards: there is no second lock to take in the wrong order") \
  X(7, "the engine has neither Io nor Kv: removing files on the loop does not compile") \
  X(8, "the engine has no Kv: it hands batches to the committer") \
  X(9, "the engine has no Io: it cannot stat") \
  X(21, "results are handed over by value: there is no field that two threads share") \
  X(24, "what the loop stages for itself runs before any request: an initialisation is never late") \
  X(40, "readers hold what the cache holds by shared pointers: eviction closes nothing that is in use") \
  X(41, "an accessor has one open shard, and blockstores borrow it: nothing is opened twice") \
  X(42, "postings are packed runs: there is no list per multihash to be read and written") \
  X(44, "results are StatusOr: a value that is not there cannot be used without a CHECK")
// clang-format on
