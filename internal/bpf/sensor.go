package bpf

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// MaxWorkers is how many rings there can be.
const MaxWorkers = 4

// SensorOptions say how a Sensor is made.
type SensorOptions struct {
	Workers   int       // rings, one reader each; 0: 1
	RingBytes int       // of all rings together, divided in powers of two; 0: 4 MiB
	Bans      int       // how many bans there is room for; 0: 65,536
	Folder    string    // on a BPF file system, where what outlives the process is pinned; "": nothing does
	Peers     *Peers    // nil: nobody is known to be connected
	Prepared  *Prepared // nil: what can be read ahead is read when it is needed
}

// Prepared is what the program is loaded from: its object, and what it has to know of
// the running kernel. It is good for one Sensor.
type Prepared struct {
	tracking func() *tracking // nil: the kernel's types have to be read as a whole
	types    *btf.Cache
	object   func() (*ebpf.CollectionSpec, error)
}

// Prepare begins to read both. Who needs them waits for it, and is told of errors.
func Prepare() *Prepared {
	p := prepare(loadXdp)
	go func() {
		if p.tracking() == nil {
			p.types.Kernel()
		}
	}()
	go p.object()
	return p
}

// prepare gives what is the same whenever it is called for.
func prepare(object func() (*ebpf.CollectionSpec, error)) *Prepared {
	return &Prepared{sync.OnceValue(builtinTracking), btf.NewCache(), sync.OnceValues(object)}
}

// Sensor is the XDP program with its maps: it drops who is banned, bans who
// probes a trap, and tells of it. Its methods are safe for concurrent use.
type Sensor struct {
	objects xdpObjects
	sent    sentPrograms
	rings   []*ebpf.Map
	folder  string
	lock    *os.File // of folder
	tracks  bool

	mu      sync.Mutex
	rules   Rules
	config  xdpSettings
	rotated uint64 // monotonic: when config.Key last changed, 0 for never
	own     map[netip.Addr]struct{}
	spare   map[netip.Prefix]struct{}
	nets    nets
	links   map[int32]*attached
}

// OpenSensor loads the program. What an earlier run has pinned in o.Folder, bans
// and interfaces, is taken over without a gap, the interfaces by TakeOver. It needs
// CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and Linux 5.18; errors say what is missing as
// those of OpenSteering do.
func OpenSensor(o SensorOptions) (*Sensor, error) {
	if o.Prepared == nil {
		o.Prepared = prepare(loadXdp)
	}
	s := &Sensor{
		folder: o.Folder, links: make(map[int32]*attached),
		own: make(map[netip.Addr]struct{}), spare: make(map[netip.Prefix]struct{}), nets: make(nets),
	}
	if s.folder != "" {
		var err error
		if s.lock, err = lock(s.folder); err != nil {
			return nil, err
		}
	}
	spec, err := o.Prepared.object()
	if err == nil {
		err = s.open(o, spec)
	}
	if err != nil {
		// What an earlier run has pinned goes on.
		return nil, errors.Join(explainBy(sensorNeeds(), capabilities(), err), s.release())
	}
	return s, nil
}

func (s *Sensor) open(o SensorOptions, spec *ebpf.CollectionSpec) error {
	workers, ringBytes := max(o.Workers, 1), o.RingBytes
	if ringBytes == 0 {
		ringBytes = 4 << 20
	}
	if workers > MaxWorkers {
		return fmt.Errorf("%d workers, at most %d", workers, MaxWorkers)
	}
	ring := spec.Maps[xdpMapRings].InnerMap
	ring.MaxEntries = powerOfTwo(ringBytes / workers)
	if o.Bans > 0 {
		spec.Maps[xdpMapBans].MaxEntries = uint32(o.Bans)
	}
	replace := make(map[string]*ebpf.Map)
	if o.Peers != nil {
		replace[xdpMapPeers] = o.Peers.Map()
	}
	left, err := takeOver(o.Folder, spec)
	defer left.close()
	if err != nil {
		return err
	}
	for name, m := range left.maps {
		replace[name] = m
	}
	rings, err := ebpf.NewMap(spec.Maps[xdpMapRings])
	if err != nil {
		return fmt.Errorf("map of rings: %w", err)
	}
	defer rings.Close()
	replace[xdpMapRings] = rings
	for _, name := range []string{xdpMapSent, xdpMapSeeds} { // which two programs have
		if replace[name] == nil {
			m, err := ebpf.NewMap(spec.Maps[name])
			if err != nil {
				return fmt.Errorf("map %s: %w", name, err)
			}
			defer m.Close()
			replace[name] = m
		}
	}
	// The kernel takes its time for each: it waits for programs that may use the
	// rings, of which there are none, and looks through the programs.
	var placed, unsent error
	var beside sync.WaitGroup
	beside.Go(func() { placed = s.placeRings(rings, ring, workers) })
	beside.Go(func() { unsent = s.loadSent(replace[xdpMapSent], replace[xdpMapSeeds]) })
	known := o.Prepared.tracking()
	if known != nil {
		known.into(spec.Programs[xdpProgSense].Instructions)
	}
	types := o.Prepared.types
	err = spec.LoadAndAssign(&s.objects, &ebpf.CollectionOptions{MapReplacements: replace, Cache: types})
	beside.Wait()
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	if err := errors.Join(placed, unsent); err != nil {
		return err
	}
	s.tracks = known != nil || tracks(types)
	if err := s.begin(workers, len(left.maps) > 0); err != nil {
		return err
	}
	if err := left.bans.into(s); err != nil {
		return fmt.Errorf("bans of an earlier version: %w", err)
	}
	return s.settle(left)
}

// placeRings makes the rings and puts them in place.
func (s *Sensor) placeRings(rings *ebpf.Map, ring *ebpf.MapSpec, workers int) error {
	for i := range workers {
		m, err := ebpf.NewMap(ring)
		if err != nil {
			return fmt.Errorf("ring of %d bytes: %w", ring.MaxEntries, err)
		}
		s.rings = append(s.rings, m)
		if err := rings.Put(uint32(i), m); err != nil {
			return fmt.Errorf("put ring in place: %w", err)
		}
	}
	return nil
}

// tracks reports whether the kernel has what the program asks connection tracking
// with: in itself, or in a module that is loaded.
func tracks(types *btf.Cache) bool {
	var f *btf.Func
	if kernel, err := types.Kernel(); err == nil && kernel.TypeByName(askTracking, &f) == nil {
		return true
	}
	module, err := types.Module("nf_conntrack")
	return err == nil && module.TypeByName(askTracking, &f) == nil
}

// Tracks reports whether the program can ask connection tracking. Where it cannot,
// only a SYN is evidence enough for a ban of its own.
func (s *Sensor) Tracks() bool { return s.tracks }

// begin fills in what does not change any more.
func (s *Sensor) begin(workers int, tookOver bool) error {
	var seed xdpSeed
	err := s.objects.Seeds.Lookup(uint32(0), &seed)
	if err == nil && seed.Hash == [2]uint64{} {
		seed.Hash = [2]uint64{random(), random()}
		err = s.objects.Seeds.Put(uint32(0), &seed)
	}
	if err != nil {
		return fmt.Errorf("key of the tables: %w", err)
	}
	s.config.Hash = seed.Hash
	s.config.Keys = [2][2]uint64{{random(), random()}, {random(), random()}}
	s.config.Workers = uint32(workers)
	s.config.Provisional = uint64(defaultProvisional)
	if tookOver {
		s.config.Bans = bannedAddrs
		if s.nets, err = readNets(s.objects.Nets); err != nil {
			return fmt.Errorf("ranges that an earlier run has banned: %w", err)
		}
		if len(s.nets) > 0 {
			s.config.Bans |= bannedNets
		}
		if err := s.objects.HitsUntil.Set(monotonic() + uint64(defaultProvisional)); err != nil {
			return err
		}
	}
	return s.configure()
}

const defaultProvisional = 10 * time.Second

// configure hands s.config to the program, which reads it field by field.
func (s *Sensor) configure() error {
	if err := s.objects.Config.Set(&s.config); err != nil {
		return fmt.Errorf("configure the XDP program: %w", err)
	}
	return nil
}

// Rings are the ring buffers, one a worker; each has one reader.
func (s *Sensor) Rings() []*ebpf.Map { return s.rings }

// WorkerOf says whose ring has what a sends, and whoever else is of its /64.
func (s *Sensor) WorkerOf(a netip.Addr) int {
	b := a.As16()
	var low uint64
	if a.Is4() {
		low = binary.NativeEndian.Uint64(b[8:])
	}
	return int(uint32(siphash(s.config.Hash, binary.NativeEndian.Uint64(b[:8]), low)) >> 16 % uint32(len(s.rings)))
}

// Sleepers is the array, to be mapped, in which a worker says that it sleeps: a
// 32-bit word every SleeperStride bytes. The program clears it and wakes the
// worker.
func (s *Sensor) Sleepers() *ebpf.Map { return s.objects.Sleepers }

// SleeperStride is how far apart the words of Sleepers are: a cache line.
const SleeperStride = 64

func random() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint64(b[:])
}

// monotonic is the program's clock.
func monotonic() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0 // never on Linux
	}
	return uint64(t.Nano())
}

// powerOfTwo is the largest one that is not above n, a page at least.
func powerOfTwo(n int) uint32 {
	p := uint32(os.Getpagesize())
	for int(p)*2 <= n {
		p *= 2
	}
	return p
}
