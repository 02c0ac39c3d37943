//go:build chaos

package chaos

import "millrace/e2e/harness"

// memory is the resident memory of each role's processes, their mean, in MB.
func (c *cluster) memory() map[string]float64 {
	sum, count := make(map[string]float64), make(map[string]float64)
	for _, s := range c.all() {
		if s.Running() {
			sum[s.Role] += float64(harness.Resident(s.Cmd.Process.Pid)) / 1e6
			count[s.Role]++
		}
	}
	for role := range sum {
		sum[role] /= count[role]
	}
	return sum
}

// sum adds a metric up over services that run.
func sum(list []*harness.Server, name, label string) float64 {
	total := 0.0
	for _, s := range list {
		if s.Running() {
			total += s.Metric(name, label)
		}
	}
	return total
}
