package edge

import "github.com/prometheus/client_golang/prometheus"

// discard is a registerer that keeps nothing.
type discard struct{}

func (discard) Register(prometheus.Collector) error  { return nil }
func (discard) MustRegister(...prometheus.Collector) {}
func (discard) Unregister(prometheus.Collector) bool { return true }
