package bpf

// RotateKeys gives new challenges another key; what the one before has made stays
// good until the next rotation.
func (s *Sensor) RotateKeys() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.config.Key ^ 1
	s.config.Keys[next] = [2]uint64{random(), random()}
	if err := s.configure(); err != nil {
		return err
	}
	s.config.Key = next
	return s.configure()
}
