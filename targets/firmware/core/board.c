/* Start-up and output for Arm's MPS2 board with a Cortex-M4 (AN386), as QEMU simulates it:
 * vector table, FPU, memory, semihosting. A real board replaces this file and mps2.ld. */
#include <stdint.h>

extern uint32_t stack_top[], data_start[], data_end[], bss_start[], bss_end[];
extern const uint32_t data_load[];

int main(void);
void reset(void);
void board_print(const char *text);
void board_exit(int code);

static uint32_t semihost(uint32_t operation, const void *argument) {
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1)
                   : "memory");
  return r0;
}

void board_print(const char *text) { semihost(0x04, text); } /* SYS_WRITE0 */

void board_exit(int code) {
  uint32_t why[2] = {0x20026, (uint32_t)code}; /* ADP_Stopped_ApplicationExit */
  semihost(0x20, why);                         /* SYS_EXIT_EXTENDED */
}

static void fault(void) {
  board_print("fault\n");
  for (;;) board_exit(2);
}

void reset(void) {
  *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* CPACR: the FPU */
  __asm__ volatile("dsb\n isb" ::: "memory");
  for (uint32_t *to = data_start, i = 0; to + i < data_end; i++) to[i] = data_load[i];
  for (uint32_t *to = bss_start; to < bss_end; to++) *to = 0;
  main();
  for (;;) board_exit(0);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (void *)reset, (void *)fault, (void *)fault,
    (void *)fault, (void *)fault, (void *)fault,
};
