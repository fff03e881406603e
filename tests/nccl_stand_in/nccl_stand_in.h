/* A library with NCCL's ABI for tests without GPUs: the functions that dist/communicator_nccl.c uses, on host memory.
 *
 * Ranks are processes of one machine that meet in shared memory. Like NCCL's, its communicators are non-blocking, what is
 * issued goes to a stream (one per process), and errors come asynchronously. Misuse that NCCL would punish (calls while one
 * is in progress, a blocking communicator, destruction without end) is an error here.
 *
 * Faults are injected by NCCL_STAND_IN_FAULT="KIND RANK CALL": on that rank, at its CALL-th collective (from 1; the barrier
 * after the initialisation is the first), or for the init-... kinds at the initialisation:
 *
 *   error       the operation fails with an asynchronous error; the other ranks see ncclRemoteError
 *   refuse      the call itself returns an error; the others see nothing, as of a rank that has left
 *   hang        the operation never ends, on any rank
 *   stuck       as error, and ncclCommAbort of that rank does not return
 *   exit        the process is gone
 *   init-slow   the initialisation takes CALL milliseconds
 *   init-error  the initialisation fails; the others wait for ever
 *   init-hang   the initialisation never ends
 *
 * The rank that meets its fault writes "fault at N ms" (since 1970) to standard error. */
#ifndef TESTS_NCCL_STAND_IN_H
#define TESTS_NCCL_STAND_IN_H

/* Whether everything that was issued to this process's stream has finished: cudaStreamQuery of the stand-in. */
int nccl_stand_in_idle(void);

#endif
