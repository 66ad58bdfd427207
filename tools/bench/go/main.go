// The work of `dagstore bench`, done by the Go original on the same CAR files, for comparison side by side.
//
//	go run . [-dir SCRATCH] [-seconds N] FOLDER_OF_CARS
//
// Registers every CAR eagerly, with the state and the inverted index in leveldb (as Lotus and Boost do), then acquires
// and releases, reads blocks by CID, and looks up multihashes. One line for each figure: name, value, unit.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/filecoin-project/dagstore"
	"github.com/filecoin-project/dagstore/index"
	"github.com/filecoin-project/dagstore/mount"
	"github.com/filecoin-project/dagstore/shard"
	"github.com/ipfs/go-cid"
	levelds "github.com/ipfs/go-ds-leveldb"
	carv2 "github.com/ipld/go-car/v2"
	carindex "github.com/ipld/go-car/v2/index"
	"github.com/multiformats/go-multicodec"
	"github.com/multiformats/go-multihash"
)

// pathMount is a local file. The module's FileMount puts the path where a URL has its host, which it cannot read back.
type pathMount struct{ mount.FileMount }

func (m *pathMount) Serialize() *url.URL { return &url.URL{Path: m.Path} }
func (m *pathMount) Deserialize(u *url.URL) error {
	m.Path = u.Path
	return nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func figure(name string, value float64, unit string) { fmt.Printf("%-60s %14.6g %s\n", name, value, unit) }

func percentile(values []float64, p float64) float64 {
	sort.Float64s(values)
	return values[min(len(values)-1, int(p*float64(len(values))))]
}

// someHashes is what the inverted index iterates over.
type someHashes []multihash.Multihash

func (h someHashes) ForEach(visit func(multihash.Multihash) error) error {
	for _, hash := range h {
		if err := visit(hash); err != nil {
			return err
		}
	}
	return nil
}

type store struct {
	*dagstore.DAGStore
	ds  *levelds.Datastore
	inv *levelds.Datastore
}

func open(ctx context.Context, dir string) store {
	registry := mount.NewRegistry()
	check(registry.Register("path", &pathMount{}))
	ds, err := levelds.NewDatastore(filepath.Join(dir, "state"), nil)
	check(err)
	inv, err := levelds.NewDatastore(filepath.Join(dir, "inverted"), nil)
	check(err)
	repo, err := index.NewFSRepo(filepath.Join(dir, "index"))
	check(err)
	d, err := dagstore.NewDAGStore(dagstore.Config{
		TransientsDir: filepath.Join(dir, "transients"),
		IndexRepo:     repo,
		TopLevelIndex: index.NewInverted(inv),
		Datastore:     ds,
		MountRegistry: registry,
	})
	check(err)
	check(d.Start(ctx))
	return store{d, ds, inv}
}

func (s store) close() {
	check(s.Close())
	check(s.ds.Close())
	check(s.inv.Close())
}

// register registers all files, at most `window` under way, and returns the seconds until the last is available.
func (s store) register(ctx context.Context, files []string, lazy bool, window int) float64 {
	out := make(chan dagstore.ShardResult, window)
	begin := time.Now()
	sent, done := 0, 0
	for done < len(files) {
		for sent < len(files) && sent-done < window {
			m := &pathMount{mount.FileMount{Path: files[sent]}}
			check(s.RegisterShard(ctx, shard.KeyFromString(filepath.Base(files[sent])), m, out,
				dagstore.RegisterOpts{LazyInitialization: lazy}))
			sent++
		}
		result := <-out
		check(result.Error)
		done++
	}
	return time.Since(begin).Seconds()
}

func (s store) acquire(ctx context.Context, key shard.Key, out chan dagstore.ShardResult) *dagstore.ShardAccessor {
	check(s.AcquireShard(ctx, key, out, dagstore.AcquireOpts{}))
	result := <-out
	check(result.Error)
	return result.Accessor
}

func main() {
	dir := flag.String("dir", os.TempDir(), "scratch space")
	seconds := flag.Float64("seconds", 3, "for each figure that is a rate")
	window := flag.Int("window", 64, "registrations under way")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	files, err := filepath.Glob(filepath.Join(flag.Arg(0), "*.car"))
	check(err)
	if len(files) == 0 {
		check(errors.New("no *.car in " + flag.Arg(0)))
	}
	ctx := context.Background()
	scratch, err := os.MkdirTemp(*dir, "dagstore-go-")
	check(err)
	defer os.RemoveAll(scratch)

	// go-car alone: the index of each CAR, nothing hashed.
	blocks, bytes := 0, int64(0)
	begin := time.Now()
	var cids []cid.Cid
	var owners []shard.Key
	for _, path := range files {
		f, err := os.Open(path)
		check(err)
		idx, err := carindex.New(multicodec.CarMultihashIndexSorted)
		check(err)
		check(carv2.LoadIndex(idx, f, carv2.ZeroLengthSectionAsEOF(true)))
		info, err := f.Stat()
		check(err)
		bytes += info.Size()
		check(f.Close())
	}
	indexing := time.Since(begin).Seconds()
	for _, path := range files { // the CIDs, for what follows
		f, err := os.Open(path)
		check(err)
		reader, err := carv2.NewBlockReader(f)
		check(err)
		for {
			block, err := reader.Next()
			if err != nil {
				break
			}
			blocks++
			if len(cids) < 1_000_000 {
				cids = append(cids, block.Cid())
				owners = append(owners, shard.KeyFromString(filepath.Base(path)))
			}
		}
		check(f.Close())
	}
	figure("files", float64(len(files)), "CARs")
	figure("blocks", float64(blocks), "blocks")
	figure("go-car: index, not verified", float64(blocks)/indexing/1e6, "M blocks/s")
	figure("go-car: index, not verified", float64(bytes)/indexing/1e9, "GB/s")

	// The inverted index alone: shards of 1,000 multihashes each, none shared.
	inv, err := levelds.NewDatastore(filepath.Join(scratch, "inverted-alone"), nil)
	check(err)
	inverted := index.NewInverted(inv)
	const perShard = 1000
	added := 0
	digest := rand.New(rand.NewSource(2))
	begin = time.Now()
	for time.Since(begin).Seconds() < 8**seconds {
		hashes := make(someHashes, perShard)
		for i := range hashes {
			raw := make([]byte, 32)
			digest.Read(raw)
			hash, err := multihash.Encode(raw, multihash.SHA2_256)
			check(err)
			hashes[i] = hash
		}
		check(inverted.AddMultihashesForShard(ctx, hashes, shard.KeyFromString(fmt.Sprint("shard-", added/perShard))))
		added += perShard
	}
	figure("inverted index: multihashes added", float64(added)/time.Since(begin).Seconds()/1e6, "M/s")
	check(inv.Close())

	s := open(ctx, filepath.Join(scratch, "repo"))
	took := s.register(ctx, files, false, *window)
	figure("register eager, durable", float64(len(files))/took, "shards/s")
	figure("register eager, durable", float64(blocks)/took, "blocks/s")

	key := shard.KeyFromString(filepath.Base(files[0]))
	out := make(chan dagstore.ShardResult, 1)
	for _, callers := range []int{1, 2} {
		var lock sync.Mutex
		var micros []float64
		var wait sync.WaitGroup
		begin := time.Now()
		for range callers {
			wait.Add(1)
			go func() {
				defer wait.Done()
				mine := make(chan dagstore.ShardResult, 1)
				var own []float64
				for time.Since(begin).Seconds() < *seconds {
					start := time.Now()
					check(s.acquire(ctx, key, mine).Close())
					own = append(own, float64(time.Since(start).Nanoseconds())/1e3)
				}
				lock.Lock()
				micros = append(micros, own...)
				lock.Unlock()
			}()
		}
		wait.Wait()
		name := fmt.Sprintf("acquire+release, durable, %d callers", callers)
		figure(name, float64(len(micros))/time.Since(begin).Seconds(), "cycles/s")
		figure(name+", p50", percentile(micros, 0.5), "us")
		figure(name+", p99", percentile(micros, 0.99), "us")
	}

	random := rand.New(rand.NewSource(1))
	accessor := s.acquire(ctx, owners[0], out)
	bs, err := accessor.Blockstore()
	check(err)
	mine := 0
	for mine < len(owners) && owners[mine] == owners[0] {
		mine++
	}
	gets := 0
	begin = time.Now()
	for time.Since(begin).Seconds() < *seconds {
		for range 64 {
			_, err := bs.Get(ctx, cids[random.Intn(mine)])
			check(err)
			gets++
		}
	}
	figure("Get by CID from an open shard, not verified", time.Since(begin).Seconds()/float64(gets)*1e9, "ns")
	check(accessor.Close())

	lookups := 0
	begin = time.Now()
	for time.Since(begin).Seconds() < *seconds {
		for range 64 {
			keys, err := s.ShardsContainingMultihash(ctx, cids[random.Intn(len(cids))].Hash())
			check(err)
			if len(keys) == 0 {
				check(errors.New("a block was not found"))
			}
			lookups++
		}
	}
	figure("shards of a multihash", time.Since(begin).Seconds()/float64(lookups)*1e9, "ns")
	s.close()

	begin = time.Now()
	s = open(ctx, filepath.Join(scratch, "repo"))
	figure("open again", time.Since(begin).Seconds(), "s")
	s.close()
}
