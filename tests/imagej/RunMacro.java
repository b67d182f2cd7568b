import ij.IJ;
import ij.macro.MacroRunner;
import ij.plugin.frame.Recorder;
import java.awt.Button;
import java.awt.Checkbox;
import java.awt.Component;
import java.awt.Container;
import java.awt.Dialog;
import java.awt.EventQueue;
import java.awt.Label;
import java.awt.TextArea;
import java.awt.TextField;
import java.awt.Window;
import java.awt.event.ActionEvent;
import java.awt.event.ActionListener;
import java.awt.event.KeyEvent;
import java.io.File;
import java.lang.reflect.Field;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;

/**
 * RunMacro FOLDER MACRO...: runs macros as the menu of ImageJ does, with the plugins of a folder, one after the other; prints what each
 * wrote into the Log window.
 *
 * <p>Dialogs are printed, "DIALOG title | text", and answered with OK, as nobody sits there: not before the thread that opened one waits for
 * the answer, since a modal dialog that is closed while it opens leaves its thread waiting for ever. A macro named {@code NAME.command} is no macro:
 * its first line is a command that is chosen from the menu with the Recorder open, each further line goes into a text field of the dialog,
 * "+" ticks a checkbox; what was recorded is printed. With
 * -Descape.when=FILE the Esc key is pressed as soon as that file is there.
 */
public class RunMacro {
    private static final Deque<String> fields = new ArrayDeque<>();

    public static void main(String[] args) throws Exception {
        Runtime.getRuntime().addShutdownHook(new Thread(RunMacro::printLog)); // also when the time is over
        Thread answering = new Thread(RunMacro::answerDialogs);
        answering.setDaemon(true);
        answering.start();
        // a port of its own: an ImageJ that finds another one at its port hands its arguments over and has no window itself
        long port = 1 + ProcessHandle.current().pid() % 8000;
        ij.ImageJ.main(new String[] {"-ijpath", args[0], "-port" + port});
        if (IJ.getInstance() == null) throw new IllegalStateException("ImageJ did not start: another one has the port");
        for (int i = 1; i < args.length; i++) {
            say("=== " + new File(args[i]).getName());
            if (args[i].endsWith(".command")) record(new File(args[i]));
            else run(new File(args[i]));
            printLog();
            IJ.log("\\Clear");
        }
        System.exit(0);
    }

    private static void run(File macro) throws InterruptedException {
        MacroRunner runner = new MacroRunner(macro);
        String escape = System.getProperty("escape.when");
        if (escape != null) {
            while (!new File(escape).exists()) Thread.sleep(10);
            java.awt.Component window = IJ.getInstance();
            long now = System.currentTimeMillis();
            IJ.getInstance().keyPressed(new KeyEvent(window, KeyEvent.KEY_PRESSED, now, 0, KeyEvent.VK_ESCAPE, KeyEvent.CHAR_UNDEFINED));
        }
        runner.getThread().join();
        Thread.sleep(100); // a last window may still be opening
    }

    private static void record(File file) throws Exception {
        for (String line : java.nio.file.Files.readAllLines(file.toPath())) fields.add(line);
        IJ.run("Record...");
        String command = fields.remove();
        Thread running = new Thread(new ij.Executer(command), command); // as the menu does
        running.start();
        running.join();
        Thread.sleep(300);
        say("RECORDED " + Recorder.getInstance().getText().trim().replace("\n", "\\n"));
        Recorder.getInstance().close();
    }

    private static void say(String text) {
        System.out.println(text);
        System.out.flush();
    }

    private static void printLog() {
        String log = IJ.getLog();
        System.out.print(log == null ? "" : log);
        System.out.flush();
    }

    /** Answer each dialog once its thread waits, and again after a second if it is still there. */
    private static void answerDialogs() {
        Map<Dialog, Long> answered = new HashMap<>();
        while (true) {
            try {
                Thread.sleep(20);
            } catch (InterruptedException e) {
                return;
            }
            for (Window window : Window.getWindows()) {
                if (!(window instanceof Dialog) || !window.isShowing()) continue;
                Dialog dialog = (Dialog) window;
                Long last = answered.get(dialog);
                long now = System.currentTimeMillis();
                if (last != null && now - last < 1000 || dialog.isModal() && !someThreadWaits()) continue;
                answered.put(dialog, now);
                EventQueue.invokeLater(() -> answer(dialog, last == null));
            }
        }
    }

    private static boolean someThreadWaits() {
        for (StackTraceElement[] calls : Thread.getAllStackTraces().values())
            for (StackTraceElement call : calls)
                if (call.getClassName().equals("java.awt.WaitDispatchSupport") && call.getMethodName().equals("enter")) return true;
        return false;
    }

    private static void answer(Dialog dialog, boolean first) {
        if (first) {
            fill(dialog);
            StringBuilder text = new StringBuilder();
            read(dialog, text);
            say("DIALOG " + dialog.getTitle() + " | " + text.toString().trim().replace("\n", " "));
        }
        press(dialog);
    }

    private static void fill(Container container) {
        for (Component c : container.getComponents()) {
            if (fields.isEmpty()) return;
            if (c instanceof TextField) ((TextField) c).setText(fields.remove());
            else if (c instanceof Checkbox && fields.remove().equals("+")) tick((Checkbox) c);
            else if (c instanceof Container) fill((Container) c);
        }
    }

    private static void tick(Checkbox box) {
        box.setState(true);
        for (java.awt.event.ItemListener l : box.getItemListeners())
            l.itemStateChanged(new java.awt.event.ItemEvent(box, 701, box.getLabel(), java.awt.event.ItemEvent.SELECTED));
    }

    private static void read(Container container, StringBuilder text) {
        for (Component c : container.getComponents()) {
            if (c instanceof Label) text.append(((Label) c).getText()).append('\n');
            else if (c instanceof TextArea) text.append(((TextArea) c).getText()).append('\n');
            else if (c instanceof TextField) text.append('<').append(((TextField) c).getText()).append(">\n");
            else if (c.getClass().getSimpleName().equals("MultiLineLabel")) text.append(lines(c)).append('\n');
            if (c instanceof Container) read((Container) c, text);
        }
    }

    private static String lines(Component label) {
        try {
            Field field = label.getClass().getDeclaredField("lines");
            field.setAccessible(true);
            return String.join("\n", (String[]) field.get(label));
        } catch (ReflectiveOperationException e) {
            return "(" + e + ")";
        }
    }

    private static boolean press(Container container) {
        for (Component c : container.getComponents()) {
            if (c instanceof Button && ((Button) c).getLabel().trim().equalsIgnoreCase("OK")) {
                for (ActionListener l : ((Button) c).getActionListeners())
                    l.actionPerformed(new ActionEvent(c, ActionEvent.ACTION_PERFORMED, ((Button) c).getLabel()));
                return true;
            }
            if (c instanceof Container && press((Container) c)) return true;
        }
        return false;
    }
}
