/* Names of the CPU backend's external symbols.
 *
 * kernels/cpu/ is compiled once per instruction set level into the same program, so every symbol that one of its files
 * exports carries the level: `#define matmul_execute CPU_NAME(matmul_execute)` in front of the prototype. */
#ifndef KERNELS_CPU_LEVEL_H
#define KERNELS_CPU_LEVEL_H

#define CPU_JOIN_(name, level) name##_##level
#define CPU_JOIN(name, level)  CPU_JOIN_(name, level)
#define CPU_NAME(name)         CPU_JOIN(name, CPU_LEVEL)

#endif
