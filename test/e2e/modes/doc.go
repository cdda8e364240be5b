// Package modes tests the ways of watching, and a change of the configuration
// while it watches, with the built program, real tools and real services.
package modes
