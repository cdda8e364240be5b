// Package faults proves with the real program that what fails around it stops neither
// watching nor banning, is said, counted, and over when it is over. Its tests work in
// network namespaces of their own; disks that are slow or full are mounted for them.
//
// Each fault has its tests:
//
//   - disk full: TestDiskFull; the history alone in test/e2e/habits (TestFullDisk)
//   - disk slow: TestDiskSlow
//   - database damaged: test/e2e/state (TestDamagedDatabase, TestReadOnlyDisk)
//   - clock stepped: TestClockStepped, by what a start finds that was written under
//     another clock; while it runs, bans end by the monotonic one
//   - nftables refused: TestNftablesRefused; the table flushed or changed by others in
//     test/e2e/ban (TestPutBack, TestFlushedUnderAScan)
//   - ring overflow: TestRingOverflow
//   - a thousand reloads: Test1000Reloads; what a reload leaves behind in
//     test/e2e/habits (TestManyReloads)
//   - out of descriptors: TestOutOfDescriptors
//
// Beside them: TestDeadLogSocket here, TestSyslogRestarts and TestReaderStops in
// test/e2e/habits, privileges taken away in test/e2e/privileges and test/e2e/xdp.
package faults
